"""Follows the labels of models: a version that a label newly means is made ready first, then jobs get it.

Loading and checking happen in this thread, beside the jobs. The switch is one write to Redis (core/catalogue.py),
made when every worker that serves the model has the new version ready, so that no job waits for it; jobs that were
accepted before finish on the version that they were promised.
"""

import logging
import threading
from contextlib import suppress

from redis.exceptions import RedisError

from upres.core import catalogue, keys, registry, workers
from upres.core.catalogue import Offer, Pin
from upres.core.errors import ModelError, ModelNotFound, ModelUnavailable, UpresError
from upres.core.manifest import Labels
from upres.core.queue import connect_quickly
from upres.core.registry import CANARY, STABLE
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.worker.engine.device import Memory
from upres.worker.models import Models

log = logging.getLogger("upres.worker")

WATCH_SECONDS = 2.0
"""How often labels are read."""
SERVED = (STABLE, CANARY)
"""Labels that jobs get without asking."""
REFUSALS = (ModelError, ModelNotFound, ModelUnavailable)


class Watcher(threading.Thread):
    """Looks after the labels of all models that are in memory, until it is closed."""

    def __init__(self, settings: Settings, store: Store, models: Models, memory: Memory) -> None:
        super().__init__(name="watcher", daemon=True)
        self._settings = settings
        self._connection = connect_quickly(settings)
        self._store = store
        self._models = models
        self._memory = memory
        self._pins: dict[tuple[str, str], Pin] = {}
        self._offered: dict[str, Offer] = {}
        self._needed: dict[str, set[str]] = {}
        self._warned: dict[str, str] = {}
        self._closed = threading.Event()

    def run(self) -> None:
        """Watch."""
        while not self._closed.wait(WATCH_SECONDS):
            self._memory.look()
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
        """What a worker does before it takes jobs: have ready what is offered now, besides what labels mean."""
        before = catalogue.published(self._connection, name)
        for label, pin in before.labels.items() if before else ():
            if label in SERVED:
                with suppress(*REFUSALS):  # if it matters, refresh says so
                    self._make_ready(name, pin)
        self.refresh(name)

    def refresh(self, name: str) -> None:
        """Make ready what a model's labels mean, and offer it to new jobs.

        Raises ModelNotFound, ModelError or ModelUnavailable when no version can be served, or not the one that is
        offered already; StoreUnavailable; redis-py's errors.
        """
        before = catalogue.published(self._connection, name)
        labels = self._apply_rule(name, registry.labels(self._store, name), before)
        pins, refused = self._make_all_ready(name, labels, before)
        if STABLE not in pins:
            pins[STABLE] = self._fall_back(name, labels, before, refused)
        offer = Offer(
            labels=pins, canary_percent=labels.canary_percent, rule=labels.rule, trial=labels.trial, refused=refused
        )
        if not offer.means(before) and self._all_have(pins, before):
            catalogue.publish(self._connection, name, offer)
            log.info("model %s: %s", name, ", ".join(f"{label} is {pin.version}" for label, pin in pins.items()))
        elif before:
            catalogue.renew(self._connection, name)
        self._offered[name] = offer
        self._needed[name] = {*_digests(offer), *(_digests(before) if before else ())}
        self._models.keep(self._digests_to_keep())

    def count(self, name: str, digest: str, well: bool) -> None:
        """A job ended; where a rule decides about a canary, it wants to know."""
        offer = self._offered.get(name)
        canary = offer.labels.get(CANARY) if offer and offer.rule else None
        if offer and canary and canary.digest == digest:
            with suppress(RedisError):  # one job more or less decides nothing
                key = keys.outcomes(name)
                self._connection.hincrby(key, f"{offer.trial}:{'well' if well else 'failed'}", 1)
                self._connection.expire(key, keys.OUTCOMES_SECONDS)

    def _make_all_ready(self, name: str, labels: Labels, before: Offer | None) -> tuple[dict[str, Pin], dict[str, str]]:
        """Each label's version as far as it can be served; which versions cannot, and why."""
        pins, refused = {}, {}
        for label, version in labels.labels.items():
            try:
                pins[label] = self._pin(name, version)
                if label in SERVED:  # others are asked for by name, and loaded then
                    self._make_ready(name, pins[label])
            except REFUSALS as error:
                offered = before.labels.get(label) if before else None
                if offered and label in pins and offered.digest == pins[label].digest:
                    raise  # it is this worker that cannot: others do, and are not to be held back
                pins.pop(label, None)
                refused[version] = str(error)
        return pins, refused

    def _pin(self, name: str, version: str) -> Pin:
        """A version as the registry has it; what was read once is not read again, for versions never change."""
        if (name, version) not in self._pins:
            self._pins[name, version] = catalogue.read(self._store, name, version)
        return self._pins[name, version]

    def _make_ready(self, name: str, pin: Pin) -> None:
        if not self._models.has(pin.digest):
            with self._models.use(name, pin):
                pass

    def _fall_back(self, name: str, labels: Labels, before: Offer | None, refused: dict[str, str]) -> Pin:
        """The version that was stable before, and still can be served."""
        earlier = [before.labels[STABLE].version] if before else []
        for version in dict.fromkeys([*earlier, *labels.before]):
            with suppress(*REFUSALS):
                pin = self._pin(name, version)
                self._make_ready(name, pin)
                return pin
        raise ModelError(f"No version of model {name!r} can be served. " + " ".join(refused.values()))

    def _all_have(self, pins: dict[str, Pin], before: Offer | None) -> bool:
        """Whether all workers that serve the model would have these versions ready."""
        if before is None:
            return True
        old = {pin.digest for pin in before.labels.values()}
        new = {pins[label].digest for label in SERVED if label in pins}
        listed = (set(worker.digests) for worker in workers.listing(self._connection) if worker.state == "ready")
        return all(new <= ready for ready in listed if ready & old)

    def _digests_to_keep(self) -> set[str]:
        """What the labels mean of the models that are loaded at the start, and what they meant until the switch."""
        return set().union(*(self._needed.get(name, set()) for name in self._settings.preloaded))

    def _apply_rule(self, name: str, labels: Labels, before: Offer | None) -> Labels:
        """Make the canary stable, or give it up, when the rule says so; as it is when that cannot be done."""
        canary = labels.labels.get(CANARY)
        if not labels.rule or not canary or not before or before.trial != labels.trial:
            return labels
        fields = [f"{labels.trial}:{end}" for end in ("well", "failed")]
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


def _digests(offer: Offer) -> set[str]:
    return {offer.labels[label].digest for label in SERVED if label in offer.labels}
