"""Watches the labels of models. When a label moves to another version, the worker loads it before new jobs get it.

This thread loads and checks the version while jobs run. Then one write to Redis (core/served_models.py) switches new
jobs to it, as soon as every worker that serves the model has it ready, so that no job waits for a model to load. Jobs
that were accepted before the switch finish with the version that they were promised.
"""

import logging
import threading
from contextlib import suppress

from redis.exceptions import RedisError

from upres.core import keys, registry, registry_changes, served_models, workers
from upres.core.errors import (
    ModelError,
    ModelNotFound,
    ModelTooNew,
    ModelUnavailable,
    StoreUnavailable,
    UpresError,
    WorkerUnavailable,
)
from upres.core.manifest import Labels
from upres.core.queue import connect_with_timeout
from upres.core.registry import CANARY, STABLE
from upres.core.served_models import ModelRef, ServedModel
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.worker.engine.device import Memory
from upres.worker.model_cache import ModelCache

log = logging.getLogger("upres.worker")

WATCH_SECONDS = 2.0
"""Interval in seconds at which labels are read."""
SERVED = (STABLE, CANARY)
"""Labels of the versions that a job gets if its request names no version."""
REFUSALS = (ModelError, ModelNotFound)
"""Errors that say that a version cannot be served, by any worker."""
TROUBLES = (ModelTooNew, ModelUnavailable, WorkerUnavailable)
"""Errors that say that this worker cannot load a version now: it is of an older release, its disk is full, or another
worker tries the version first. Of errors that are both, this counts."""


class LabelWatcher(threading.Thread):
    """Watches the labels of all models that are in memory, until it is closed."""

    def __init__(self, settings: Settings, store: Store, models: ModelCache, memory: Memory) -> None:
        super().__init__(name="watcher", daemon=True)
        self._settings = settings
        self._connection = connect_with_timeout(settings)
        self._store = store
        self._models = models
        self._memory = memory
        self._refs: dict[tuple[str, str], ModelRef] = {}
        self._served: dict[str, ServedModel] = {}
        self._needed: dict[str, set[str]] = {}
        self._warned: dict[str, str] = {}
        self.troubles: dict[str, str] = {}
        """Models of which this worker cannot load a version now → why."""
        self._closed = threading.Event()

    def run(self) -> None:
        """Refresh the labels of all models every WATCH_SECONDS; errors are logged, and the next round tries again."""
        while not self._closed.wait(WATCH_SECONDS):
            self._memory.refresh()
            self.refresh_all()

    def refresh_all(self) -> None:
        """Refresh the labels of all models in memory, and forget the troubles with models that are not served here."""
        names = {model.manifest.name for model in self._models.ready()}
        for name in names:
            try:
                self.refresh(name)
            except (UpresError, RedisError) as error:
                self._warn(name, str(error))
            except Exception:
                log.exception("labels of model %s", name)
        for name in self.troubles.keys() - names - set(self._settings.preloaded):
            del self.troubles[name]

    def close(self) -> None:
        """Stop watching. The thread does not wait for a version that is being loaded; it ends with the process."""
        self._closed.set()

    def _warn(self, name: str, reason: str) -> None:
        """Log a warning about a model's labels, unless the last warning about them was the same."""
        if self._warned.get(name) != reason:
            log.warning("labels of model %s: %s", name, reason)
        self._warned[name] = reason

    def prepare(self, name: str) -> None:
        """Load the versions that are served now, then those that the labels mean, before the worker takes jobs.

        They differ while a label is being moved. Raises what `refresh` raises.
        """
        before = served_models.published(self._connection, name)
        for label, ref in before.labels.items() if before else ():
            if label in SERVED:
                with suppress(*REFUSALS, *TROUBLES):  # if the version is needed, refresh raises the error
                    self._make_ready(name, ref)
        self.refresh(name)

    def served_digests(self) -> set[str]:
        """Return the digests of the stable versions and canaries of the models that this worker serves."""
        names = {*self._settings.preloaded, *(model.manifest.name for model in self._models.ready())}
        return set().union(*(_digests(served) for name, served in list(self._served.items()) if name in names))

    def refresh(self, name: str) -> None:
        """Load the versions that a model's labels mean, and publish them for new jobs when all workers have them.

        Raises ModelNotFound, ModelError or ModelUnavailable when no version can be served, or when this worker cannot
        serve a version that other workers serve; StoreUnavailable; redis-py's errors.
        """
        before = served_models.published(self._connection, name)
        try:
            stored = registry.labels(self._store, name)
        except (ModelError, StoreUnavailable):
            self._go_on(name, before)
            raise
        labels = self._apply_rule(name, stored, before)
        refs, refused, trouble = self._make_all_ready(name, labels, before)
        self._note(name, trouble)
        if trouble and before:
            self._stay(name, before)
            return
        if STABLE not in refs:
            reasons = [*refused.values(), *([str(trouble)] if trouble else [])]
            refs[STABLE] = self._fall_back(name, labels, before, reasons)
        served = ServedModel(
            labels=refs,
            canary_percent=labels.canary_percent,
            rule=labels.rule,
            canary_run_id=labels.canary_run_id,
            refused=refused,
        )
        if not served.same_as(before) and self._all_have(refs, before):
            served_models.publish(self._connection, name, served)
            log.info("model %s: %s", name, ", ".join(f"{label} is {ref.version}" for label, ref in refs.items()))
        elif before:
            served_models.extend(self._connection, name)
        self._served[name] = served
        self._needed[name] = {*_digests(served), *(_digests(before) if before else ())}
        self._models.keep(self._digests_to_keep())

    def _stay(self, name: str, before: ServedModel) -> None:
        """Keep on serving the versions before, as long as this worker cannot load those that labels mean now.

        Raises what `refresh` raises when it cannot load the stable version before either.
        """
        served_models.extend(self._connection, name)
        self._served[name] = before
        self._needed[name] = _digests(before)
        self._models.keep(self._digests_to_keep())
        self._make_ready(name, before.labels[STABLE], waits=False)

    def _note(self, name: str, trouble: UpresError | None) -> None:
        """Keep, for the worker's record, why it cannot load a version of a model now; None: it has them all."""
        if trouble:
            self._warn(name, str(trouble))
            self.troubles[name] = str(trouble)
        else:
            self.troubles.pop(name, None)

    def _go_on(self, name: str, before: ServedModel | None) -> None:
        """Keep on serving what is served, or was served last, while the labels cannot be read."""
        if before:
            served_models.extend(self._connection, name)
        elif name in self._served:
            served_models.publish(self._connection, name, self._served[name])

    def _make_all_ready(
        self, name: str, labels: Labels, before: ServedModel | None
    ) -> tuple[dict[str, ModelRef], dict[str, str], UpresError | None]:
        """Load the version of each label.

        Returns the versions that can be served, by label; for each version that cannot be served the reason; and why
        this worker cannot load a version that others perhaps can.
        """
        refs, refused, trouble = {}, {}, None
        for label, version in labels.labels.items():
            try:
                refs[label] = self._ref(name, version)
                if label in SERVED:  # the version of any other label is loaded when a job asks for it
                    self._make_ready(name, refs[label], waits=before is None)
            except (*REFUSALS, *TROUBLES) as error:
                served = before.labels.get(label) if before else None
                if served and label in refs and served.digest == refs[label].digest:
                    raise  # other workers serve it: the fault is this worker's, and must not change the label
                refs.pop(label, None)
                if isinstance(error, TROUBLES):
                    trouble = error
                else:
                    refused[version] = str(error)
        return refs, refused, trouble

    def _ref(self, name: str, version: str) -> ModelRef:
        """Read a version's digest from the registry, once, because a version never changes."""
        if (name, version) not in self._refs:
            self._refs[name, version] = served_models.read(self._store, name, version)
        return self._refs[name, version]

    def _make_ready(self, name: str, ref: ModelRef, waits: bool = True) -> None:
        """Load and check a version; not again if the memory budget does not hold it, which a preloaded model ignores.

        Two versions for which there is room for one would take turns for ever. A job that asks for one loads it.
        `waits`: see ModelCache.use.
        """
        if name in self._settings.preloaded:
            self._needed.setdefault(name, set()).add(ref.digest)
            self._models.keep(self._digests_to_keep())
        elif self._models.has_no_room(ref.digest):
            return
        if not self._models.has(ref.digest):
            with self._models.use(name, ref, ahead=True, waits=waits):
                pass

    def _fall_back(self, name: str, labels: Labels, before: ServedModel | None, reasons: list[str]) -> ModelRef:
        """Load and return the latest earlier stable version that can be served. Raises ModelError if there is none."""
        earlier = [before.labels[STABLE].version] if before else []
        for version in dict.fromkeys([*earlier, *labels.before]):
            with suppress(*REFUSALS, *TROUBLES):
                ref = self._ref(name, version)
                self._make_ready(name, ref)
                return ref
        raise ModelError(f"No version of model {name!r} can be served. " + " ".join(reasons))

    def _all_have(self, refs: dict[str, ModelRef], before: ServedModel | None) -> bool:
        """Return whether all workers that serve the model have these versions ready, or have no room for them."""
        if before is None:
            return True
        old = {ref.digest for ref in before.labels.values()}
        new = {refs[label].digest for label in SERVED if label in refs}
        listed = (worker for worker in workers.listing(self._connection) if worker.state == "ready")
        serving = [worker for worker in listed if old.intersection(worker.digests)]
        return all(new <= {*worker.digests, *worker.on_request} for worker in serving)

    def _digests_to_keep(self) -> set[str]:
        """Return the digests of the preloaded models' versions, and of those that they replace until the switch."""
        return set().union(*(self._needed.get(name, set()) for name in self._settings.preloaded))

    def _apply_rule(self, name: str, labels: Labels, before: ServedModel | None) -> Labels:
        """Promote or remove the canary when the rule says so. Returns the new labels, or the old ones if it failed."""
        canary = labels.labels.get(CANARY)
        if not labels.rule or not canary or not before or before.canary_run_id != labels.canary_run_id:
            return labels
        fields = [f"{labels.canary_run_id}:{end}" for end in ("well", "failed")]
        well, failed = (int(count or 0) for count in self._connection.hmget(keys.outcomes(name), fields))
        try:
            if failed > labels.rule.jobs * labels.rule.most_failed_percent / 100:
                log.warning("model %s: canary %s failed %d jobs, and is given up", name, canary, failed)
                return registry_changes.relabel(self._store, name, {CANARY: None})
            if well + failed >= labels.rule.jobs:
                log.info("model %s: canary %s did %d jobs, and becomes stable", name, canary, well + failed)
                return registry_changes.promote(self._store, name, expected=canary)
        except UpresError as error:
            log.error("model %s: the rule cannot be carried out: %s", name, error)
        return labels


def _digests(served: ServedModel) -> set[str]:
    """Return the digests of the stable version and of the canary."""
    return {served.labels[label].digest for label in SERVED if label in served.labels}
