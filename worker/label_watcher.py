"""Follows the labels of models: a version that a label newly means is made ready first, then jobs get it.

Loading and checking happen in this thread, beside the jobs. The switch is one write to Redis (core/served_models.py),
made when every worker that serves the model has the new version ready, so that no job waits for it; jobs that were
accepted before finish on the version that they were promised.
"""

import logging
import threading
from contextlib import suppress

from redis.exceptions import RedisError

from upres.core import keys, registry, served_models, workers
from upres.core.errors import ModelError, ModelNotFound, ModelUnavailable, UpresError
from upres.core.manifest import Labels
from upres.core.queue import connect_quickly
from upres.core.registry import CANARY, STABLE
from upres.core.served_models import ModelRef, ServedModel
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.worker.engine.device import Memory
from upres.worker.model_cache import ModelCache

log = logging.getLogger("upres.worker")

WATCH_SECONDS = 2.0
"""How often labels are read."""
SERVED = (STABLE, CANARY)
"""Labels that jobs get without asking."""
REFUSALS = (ModelError, ModelNotFound, ModelUnavailable)


class LabelWatcher(threading.Thread):
    """Looks after the labels of all models that are in memory, until it is closed."""

    def __init__(self, settings: Settings, store: Store, models: ModelCache, memory: Memory) -> None:
        super().__init__(name="watcher", daemon=True)
        self._settings = settings
        self._connection = connect_quickly(settings)
        self._store = store
        self._models = models
        self._memory = memory
        self._refs: dict[tuple[str, str], ModelRef] = {}
        self._served: dict[str, ServedModel] = {}
        self._needed: dict[str, set[str]] = {}
        self._warned: dict[str, str] = {}
        self._closed = threading.Event()

    def run(self) -> None:
        """Watch."""
        while not self._closed.wait(WATCH_SECONDS):
            self._memory.refresh()
            for name in {model.manifest.name for model in self._models.ready()}:
                try:
                    self.refresh(name)
                except (UpresError, RedisError) as error:
                    self._warn(name, str(error))
                except Exception:
                    log.exception("labels of model %s", name)

    def close(self) -> None:
        """Watch no more; a version that is being loaded is given up with the process."""
        self._closed.set()

    def _warn(self, name: str, reason: str) -> None:
        """Say it once, not every other second."""
        if self._warned.get(name) != reason:
            log.warning("labels of model %s: %s", name, reason)
        self._warned[name] = reason

    def prepare(self, name: str) -> None:
        """What a worker does before it takes jobs: have ready what is served now, besides what labels mean."""
        before = served_models.published(self._connection, name)
        for label, ref in before.labels.items() if before else ():
            if label in SERVED:
                with suppress(*REFUSALS):  # if it matters, refresh says so
                    self._make_ready(name, ref)
        self.refresh(name)

    def refresh(self, name: str) -> None:
        """Make ready what a model's labels mean, and served it to new jobs.

        Raises ModelNotFound, ModelError or ModelUnavailable when no version can be served, or not the one that is
        served already; StoreUnavailable; redis-py's errors.
        """
        before = served_models.published(self._connection, name)
        labels = self._apply_rule(name, registry.labels(self._store, name), before)
        refs, refused = self._make_all_ready(name, labels, before)
        if STABLE not in refs:
            refs[STABLE] = self._fall_back(name, labels, before, refused)
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

    def count(self, name: str, digest: str, well: bool) -> None:
        """A job ended; where a rule decides about a canary, it wants to know."""
        served = self._served.get(name)
        canary = served.labels.get(CANARY) if served and served.rule else None
        if served and canary and canary.digest == digest:
            with suppress(RedisError):  # one job more or less decides nothing
                key = keys.outcomes(name)
                self._connection.hincrby(key, f"{served.canary_run_id}:{'well' if well else 'failed'}", 1)
                self._connection.expire(key, keys.OUTCOMES_SECONDS)

    def _make_all_ready(
        self, name: str, labels: Labels, before: ServedModel | None
    ) -> tuple[dict[str, ModelRef], dict[str, str]]:
        """Each label's version as far as it can be served; which versions cannot, and why."""
        refs, refused = {}, {}
        for label, version in labels.labels.items():
            try:
                refs[label] = self._ref(name, version)
                if label in SERVED:  # others are asked for by name, and loaded then
                    self._make_ready(name, refs[label])
            except REFUSALS as error:
                served = before.labels.get(label) if before else None
                if served and label in refs and served.digest == refs[label].digest:
                    raise  # it is this worker that cannot: others do, and are not to be held back
                refs.pop(label, None)
                refused[version] = str(error)
        return refs, refused

    def _ref(self, name: str, version: str) -> ModelRef:
        """A version as the registry has it; what was read once is not read again, for versions never change."""
        if (name, version) not in self._refs:
            self._refs[name, version] = served_models.read(self._store, name, version)
        return self._refs[name, version]

    def _make_ready(self, name: str, ref: ModelRef) -> None:
        if not self._models.has(ref.digest):
            with self._models.use(name, ref):
                pass

    def _fall_back(self, name: str, labels: Labels, before: ServedModel | None, refused: dict[str, str]) -> ModelRef:
        """The version that was stable before, and still can be served."""
        earlier = [before.labels[STABLE].version] if before else []
        for version in dict.fromkeys([*earlier, *labels.before]):
            with suppress(*REFUSALS):
                ref = self._ref(name, version)
                self._make_ready(name, ref)
                return ref
        raise ModelError(f"No version of model {name!r} can be served. " + " ".join(refused.values()))

    def _all_have(self, refs: dict[str, ModelRef], before: ServedModel | None) -> bool:
        """Whether all workers that serve the model would have these versions ready."""
        if before is None:
            return True
        old = {ref.digest for ref in before.labels.values()}
        new = {refs[label].digest for label in SERVED if label in refs}
        listed = (set(worker.digests) for worker in workers.listing(self._connection) if worker.state == "ready")
        return all(new <= ready for ready in listed if ready & old)

    def _digests_to_keep(self) -> set[str]:
        """What the labels mean of the models that are loaded at the start, and what they meant until the switch."""
        return set().union(*(self._needed.get(name, set()) for name in self._settings.preloaded))

    def _apply_rule(self, name: str, labels: Labels, before: ServedModel | None) -> Labels:
        """Make the canary stable, or give it up, when the rule says so; as it is when that cannot be done."""
        canary = labels.labels.get(CANARY)
        if not labels.rule or not canary or not before or before.canary_run_id != labels.canary_run_id:
            return labels
        fields = [f"{labels.canary_run_id}:{end}" for end in ("well", "failed")]
        well, failed = (int(count or 0) for count in self._connection.hmget(keys.outcomes(name), fields))
        try:
            if failed > labels.rule.jobs * labels.rule.most_failed_percent / 100:
                log.warning("model %s: canary %s failed %d jobs, and is given up", name, canary, failed)
                return registry.relabel(self._store, name, {CANARY: None})
            if well + failed >= labels.rule.jobs:
                log.info("model %s: canary %s did %d jobs, and becomes stable", name, canary, well + failed)
                return registry.promote(self._store, name, expected=canary)
        except UpresError as error:
            log.error("model %s: the rule cannot be carried out: %s", name, error)
        return labels


def _digests(served: ServedModel) -> set[str]:
    return {served.labels[label].digest for label in SERVED if label in served.labels}
