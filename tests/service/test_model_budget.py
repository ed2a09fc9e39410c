"""Tests of a memory budget that does not hold all versions that a worker serves, with a real cache of models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.pushing import Pushed, pushed_copy
from upres.console.doctor.processes import check_workers
from upres.core import registry_changes, served_models, workers
from upres.core.served_models import ModelRef
from upres.core.storage import Store
from upres.core.workers import Worker
from upres.embedded.stack import Local
from upres.worker import model_cache
from upres.worker.engine.device import Memory, choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.imaging.decoding import Decoders
from upres.worker.label_watcher import LabelWatcher
from upres.worker.model import pull
from upres.worker.model_cache import ModelCache

MEGABYTES = 12
"""One version of the bundled model takes ten."""


@pytest.fixture
def model(store: Store, isolated_redis: Redis, tmp_path: Path) -> Iterator[Pushed]:
    """A model with a stable version and a canary."""
    for pushed in pushed_copy(store, isolated_redis, tmp_path):
        pushed.push("2", golden=[])
        registry_changes.relabel(store, pushed.name, {"canary": "2"})
        yield pushed


class One:
    """One worker without jobs: its models and what watches their labels, and the versions that it loaded."""

    def __init__(self, watcher: LabelWatcher, models: ModelCache, loads: list[str]) -> None:
        self.watcher, self.models, self.loads = watcher, models, loads

    def record(self) -> Worker:
        served = self.watcher.served_digests()
        return Worker(
            name=f"here-{os.getpid()}",
            state="ready",
            device="d",
            models=(),
            digests=tuple(one.key for one in self.models.ready()),
            on_request=tuple(self.models.unloaded(served)),
            weights_budget=self.models.budget,
            weights_served=self.models.bytes_of(served),
            slots=1,
            jobs=(),
        )


@contextmanager
def worker(local: Local, store: Store, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> Iterator[One]:
    """Give a worker whose budget holds one of the two versions."""
    loads: list[str] = []

    def counted(*arguments: Any) -> Any:
        loads.append(arguments[2])
        return pull(*arguments)

    monkeypatch.setattr(model_cache, "pull", counted)
    address = local.settings.redis_url.removesuffix("/0") + "/1"
    settings = local.settings.model_copy(update={"model_megabytes": MEGABYTES, "redis_url": address, **changed})
    with DeviceThread() as thread, Decoders(1, 1_000_000) as decoders:
        models = ModelCache(settings, store, choose("cpu"), thread, decoders)
        yield One(LabelWatcher(settings, store, models, Memory(choose("cpu"))), models, loads)


def refs(store: Store, model: Pushed) -> list[ModelRef]:
    return [served_models.read(store, model.name, version) for version in ("1", "2")]


def test_two_versions_do_not_take_turns_in_memory_for_one(
    local: Local, store: Store, isolated_redis: Redis, model: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    stable, canary = refs(store, model)
    with worker(local, store, monkeypatch) as one:
        with one.models.use(model.name, stable):
            pass
        for _ in range(5):
            one.watcher.refresh(model.name)
            workers.publish(isolated_redis, one.record())
        assert one.loads == ["1", "2"]  # the canary once, to be checked
        assert one.models.has(stable.digest)  # which a job asked for
        offer = served_models.published(isolated_redis, model.name)
        assert offer is not None
        assert {label: ref.version for label, ref in offer.labels.items()} == {"stable": "1", "canary": "2"}
        with one.models.use(model.name, canary):
            assert one.loads == ["1", "2", "2"]
        assert [found.manifest.version for found in one.models.ready()] == ["2"]


def test_a_label_moves_although_both_versions_do_not_fit(
    local: Local, store: Store, isolated_redis: Redis, model: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(local, store, monkeypatch) as one:
        with one.models.use(model.name, refs(store, model)[0]):
            pass
        one.watcher.refresh(model.name)
        registry_changes.relabel(store, model.name, {"canary": None, "stable": "2"})
        for _ in range(2):
            workers.publish(isolated_redis, one.record())
            one.watcher.refresh(model.name)
        offer = served_models.published(isolated_redis, model.name)
        assert offer is not None
        assert {label: ref.version for label, ref in offer.labels.items()} == {"stable": "2"}


def test_the_versions_of_a_preloaded_model_stay_and_the_doctor_says_how_much_is_lacking(
    local: Local, store: Store, isolated_redis: Redis, model: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(local, store, monkeypatch, model=model.name) as one:
        one.watcher.prepare(model.name)
        for _ in range(2):
            one.watcher.refresh(model.name)
        assert sorted(one.loads) == ["1", "2"]
        workers.publish(isolated_redis, one.record())
        needed = one.models.bytes_of({ref.digest for ref in refs(store, model)})
    settings = local.settings.model_copy(update={"model": model.name})
    [finding] = [one for one in check_workers(isolated_redis, settings) if one.what == "memory of models"]
    assert finding.grade == "warning"
    assert f"{-(-needed // 1_000_000) - MEGABYTES:.1f} MB more than its budget" in finding.found
    assert "UPRES_MODEL_MEGABYTES" in finding.fix
