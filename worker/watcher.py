"""Follows the labels of models: a version that a label newly means is made ready first, then jobs get it.

Loading and checking happen in this thread, beside the jobs. The switch is one write to Redis (core/catalogue.py),
made when every worker that serves the model has the new version ready, so that no job waits for it; jobs that were
accepted before finish on the version that they were promised.
"""

import logging
import threading
import time
from contextlib import suppress

from redis.exceptions import RedisError

from core import catalogue, keys, registry, workers
from core.catalogue import Offer, Pin
from core.errors import ModelError, ModelNotFound, UpresError
from core.manifest import Labels
from core.queue import connect_quickly
from core.registry import CANARY, STABLE
from core.settings import Settings
from core.storage import Store
from worker.models import Models

log = logging.getLogger("upres.worker")

WATCH_SECONDS = 2.0
"""How often labels are read."""
REFUSED_SECONDS = 300
"""A version that was refused is tried again after so long: somebody may have mended it."""


class Watcher(threading.Thread):
    """Looks after the labels of all models that are in memory, until it is closed."""

    def __init__(self, settings: Settings, store: Store, models: Models) -> None:
        super().__init__(name="watcher", daemon=True)
        self._settings = settings
        self._connection = connect_quickly(settings)
        self._store = store
        self._models = models
        self._refused: dict[str, tuple[float, ModelError]] = {}
        self._counted: dict[str, str | None] = {}
        self._closed = threading.Event()

    def run(self) -> None:
        """Watch."""
        while not self._closed.wait(WATCH_SECONDS):
            for name in {model.manifest.name for model in self._models.ready()}:
                try:
                    self.refresh(name)
                except (UpresError, RedisError) as error:
                    log.warning("labels of model %s: %s", name, error)
                except Exception:
                    log.exception("labels of model %s", name)

    def close(self) -> None:
        """Watch no more; a version that is being loaded is given up with the process."""
        self._closed.set()

    def refresh(self, name: str) -> None:
        """Make ready what a model's labels mean, and offer it to new jobs.

        Raises ModelNotFound or ModelError when no version can be served; StoreUnavailable; redis-py's errors.
        """
        before = catalogue.published(self._connection, name)
        labels = self._apply_rule(name, registry.labels(self._store, name), before)
        pins, refused = self._make_all_ready(name, labels)
        if STABLE not in pins:
            pins[STABLE] = self._fall_back(name, labels, before, refused)
        offer = Offer(labels=pins, canary_percent=labels.canary_percent, rule=labels.rule, refused=refused)
        if offer != before and self._all_have(pins, before):
            catalogue.publish(self._connection, name, offer)
            log.info("model %s: %s", name, ", ".join(f"{label} is {pin.version}" for label, pin in pins.items()))
        canary = pins.get(CANARY)
        self._counted[name] = canary.digest if canary and labels.rule else None

    def count(self, name: str, digest: str, well: bool) -> None:
        """A job ended; where a rule decides about a canary, it wants to know."""
        if self._counted.get(name) == digest:
            with suppress(RedisError):  # one job more or less decides nothing
                self._connection.hincrby(keys.outcomes(name), f"{digest}:{'well' if well else 'failed'}", 1)
                self._connection.expire(keys.outcomes(name), keys.OUTCOMES_SECONDS)

    def _make_all_ready(self, name: str, labels: Labels) -> tuple[dict[str, Pin], dict[str, str]]:
        """Each label's version as far as it can be served; which versions cannot, and why."""
        pins, refused = {}, {}
        for label, version in labels.labels.items():
            try:
                pin = catalogue.read(self._store, name, version)
                if label in (STABLE, CANARY):  # others are asked for by name, and loaded then
                    self._make_ready(name, pin)
                pins[label] = pin
            except (ModelError, ModelNotFound) as error:
                refused[version] = str(error)
        return pins, refused

    def _make_ready(self, name: str, pin: Pin) -> None:
        since, reason = self._refused.get(pin.digest, (-REFUSED_SECONDS, None))
        if reason and time.monotonic() < since + REFUSED_SECONDS:
            raise reason
        try:
            with self._models.use(name, pin):
                self._refused.pop(pin.digest, None)
        except ModelError as error:
            log.error("model %s %s is refused: %s", name, pin.version, error)
            self._refused[pin.digest] = (time.monotonic(), error)
            raise

    def _fall_back(self, name: str, labels: Labels, before: Offer | None, refused: dict[str, str]) -> Pin:
        """The version that was stable before, and still can be served."""
        earlier = [before.labels[STABLE].version] if before else []
        for version in dict.fromkeys([*earlier, *labels.before]):
            with suppress(ModelError, ModelNotFound):
                pin = catalogue.read(self._store, name, version)
                self._make_ready(name, pin)
                return pin
        raise ModelError(f"No version of model {name!r} can be served. " + " ".join(refused.values()))

    def _all_have(self, pins: dict[str, Pin], before: Offer | None) -> bool:
        """Whether all workers that serve the model would have these versions ready."""
        if before is None:
            return True
        old = {pin.digest for pin in before.labels.values()}
        new = {pin.digest for label, pin in pins.items() if label in (STABLE, CANARY)}
        listed = (set(worker.digests) for worker in workers.listing(self._connection))
        return all(new <= ready for ready in listed if ready & old)

    def _apply_rule(self, name: str, labels: Labels, before: Offer | None) -> Labels:
        """Make the canary stable, or give it up, when the rule says so."""
        canary = before.labels.get(CANARY) if before else None
        if not labels.rule or not canary or labels.labels.get(CANARY) != canary.version:
            return labels
        counts = self._connection.hmget(keys.outcomes(name), [f"{canary.digest}:{end}" for end in ("well", "failed")])
        well, failed = (int(count or 0) for count in counts)
        if failed > labels.rule.jobs * labels.rule.most_failed_percent / 100:
            log.warning("model %s: canary %s failed %d jobs, and is given up", name, canary.version, failed)
            return registry.set_label(self._store, name, CANARY, None)
        if well + failed >= labels.rule.jobs:
            log.info("model %s: canary %s did %d jobs, and becomes stable", name, canary.version, well + failed)
            return registry.promote(self._store, name)
        return labels
