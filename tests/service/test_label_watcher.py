"""Tests of LabelWatcher with several workers: when a label that was moved is published for new jobs.

Also a test of `prune`, which deletes old files from the cache of models.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import submit, taken
from tests.support.pushing import Pushed
from upres.core import events, keys, leases, registry, registry_changes, served_models, workers
from upres.core.errors import ModelError, ModelUnavailable
from upres.core.manifest import Rule
from upres.core.schema import Succeeded
from upres.core.served_models import ModelRef
from upres.core.storage import Store
from upres.core.workers import Worker
from upres.embedded.stack import Local
from upres.worker.engine.device import Memory, choose
from upres.worker.label_watcher import LabelWatcher
from upres.worker.model import Model, open_folder
from upres.worker.model_cache import ModelCache


class Shelf:
    """A stand-in for the ModelCache of one worker. It loads every version except those in `cannot`."""

    def __init__(self, cannot: dict[str, Exception] | None = None) -> None:
        self.cannot = cannot or {}
        self.loaded: dict[str, ModelRef] = {}
        self.kept: set[str] = set()

    @contextmanager
    def use(self, name: str, ref: ModelRef, ahead: bool, waits: bool) -> Iterator[None]:
        if ref.version in self.cannot:
            raise self.cannot[ref.version]
        self.loaded[ref.digest] = ref
        yield

    def has(self, digest: str) -> bool:
        return digest in self.loaded

    def has_no_room(self, digest: str) -> bool:
        return False

    def ready(self) -> list[Model]:
        return []

    def keep(self, digests: set[str]) -> None:
        self.kept = digests


class One:
    """One of several workers: a real LabelWatcher with a stand-in for the model cache, and no process."""

    def __init__(self, local: Local, redis: Redis, store: Store, name: str, cannot: Any = None) -> None:
        self.shelf = Shelf(cannot)
        self.name, self.model, self.redis = f"w-{secrets.token_hex(3)}", name, redis
        settings = local.settings.model_copy(
            update={"model": name, "redis_url": local.settings.redis_url.removesuffix("/0") + "/1"}
        )
        self.watcher = LabelWatcher(settings, store, cast(ModelCache, self.shelf), Memory(choose("cpu")))
        self.state = "ready"

    def refresh(self) -> None:
        """Do it twice: the watcher reads the digests of its own worker from Redis, as it does for other workers."""
        for _ in range(2):
            self.watcher.refresh(self.model)
            self.tell()

    def tell(self) -> None:
        fields = {"device": "d", "models": (), "slots": 1, "jobs": (), "digests": tuple(self.shelf.loaded)}
        workers.publish(self.redis, Worker.model_validate({"name": self.name, "state": self.state, **fields}))


@pytest.fixture
def model(store: Store, tmp_path: Path) -> Pushed:
    pushed = Pushed(store, f"watched-{secrets.token_hex(3)}", tmp_path)
    pushed.push("1")
    pushed.push("2", networks=pushed.fields["networks"][:1], golden=[])
    return pushed


def served(redis: Redis, model: Pushed) -> dict[str, str]:
    offer = served_models.published(redis, model.name)
    return {label: ref.version for label, ref in offer.labels.items()} if offer else {}


def do(redis: Redis, model: Pushed, digest: str) -> None:
    """Let a job succeed that uses this version of the model."""
    job_id = submit(redis)
    lease = taken(redis)
    leases.at_work(redis, lease, model.name, digest)
    events.append(redis, Succeeded(job_id=job_id, result=RESULT), lease.holder)


def relabel(model: Pushed, **changes: str | None) -> None:
    registry_changes.relabel(model.store, model.name, changes)


def test_a_new_version_is_published_when_all_workers_of_the_model_have_it(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first, second, other = (One(local, isolated_redis, store, model.name) for _ in range(3))
    first.refresh()
    second.refresh()
    other.tell()  # has no version of this model, so the switch does not wait for it
    relabel(model, stable="2")
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}
    second.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}


def test_a_stopping_worker_does_not_delay_the_switch_to_a_new_version(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first, second = (One(local, isolated_redis, store, model.name) for _ in range(2))
    first.refresh()
    second.refresh()
    second.state = "stopping"
    second.tell()
    relabel(model, stable="2")
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}


def test_a_starting_worker_that_cannot_load_does_not_change_the_label(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first = One(local, isolated_redis, store, model.name)
    first.refresh()
    relabel(model, stable="2")
    first.refresh()
    sick = One(local, isolated_redis, store, model.name, {"2": ModelUnavailable("its disk is full")})
    with pytest.raises(ModelUnavailable):
        sick.watcher.prepare(model.name)  # so this worker does not start
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}


def test_a_starting_worker_that_can_load_neither_the_new_version_nor_the_one_before_does_not_start(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first = One(local, isolated_redis, store, model.name)
    first.refresh()
    relabel(model, stable="2")
    full = ModelUnavailable("its disk is full")
    sick = One(local, isolated_redis, store, model.name, {"1": full, "2": full})
    with pytest.raises(ModelUnavailable):
        sick.watcher.prepare(model.name)
    assert served(isolated_redis, model) == {"stable": "1"}


def test_a_trouble_with_a_model_is_told_as_long_as_the_model_is_in_memory(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first = One(local, isolated_redis, store, model.name)
    first.refresh()
    relabel(model, stable="2")
    first.shelf.cannot = {"2": ModelUnavailable("its disk is full")}
    first.refresh()
    assert first.watcher.troubles == {model.name: "its disk is full"}
    first.watcher.refresh_all()  # the model is preloaded
    assert first.watcher.troubles
    first.watcher._settings = local.settings
    first.watcher.refresh_all()
    assert first.watcher.troubles == {}


def test_a_version_that_one_worker_refuses_is_not_published(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first, second = (
        One(local, isolated_redis, store, model.name),
        One(local, isolated_redis, store, model.name, {"2": ModelError("no")}),
    )
    first.refresh()
    second.refresh()
    relabel(model, stable="2")
    for _ in range(3):
        first.refresh()
        second.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}
    offer = served_models.published(isolated_redis, model.name)
    assert offer
    assert offer.refused == {"2": "no"}


def test_a_starting_worker_loads_the_published_and_the_new_version(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first = One(local, isolated_redis, store, model.name)
    first.refresh()
    held = One(local, isolated_redis, store, model.name, {"2": ModelError("no")})
    held.refresh()
    relabel(model, stable="2")
    late = One(local, isolated_redis, store, model.name)
    late.watcher.prepare(model.name)
    assert sorted(ref.version for ref in late.shelf.loaded.values()) == ["1", "2"]
    assert late.shelf.kept == set(late.shelf.loaded)  # neither version is removed from memory before the switch
    held.watcher.close()
    workers.deregister(isolated_redis, held.name)
    for one in (first, late):
        one.refresh()
        one.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}
    assert late.shelf.kept == {ref.digest for ref in late.shelf.loaded.values() if ref.version == "2"}


def test_a_rule_that_cannot_be_applied_does_not_block_other_changes(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    lossy = [{**one, "quality": {"psnr_loss_db": 0.5}} for one in model.fields["networks"]]
    model.push("3", networks=lossy)
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    rule = Rule(jobs=1, most_failed_percent=0)
    registry_changes.relabel(store, model.name, {"canary": "3"}, rule=rule)
    one.refresh()
    trial = registry.labels(store, model.name).canary_run_id
    isolated_redis.hset(keys.outcomes(model.name), f"{trial}:well", 5)
    relabel(model, stable="2")
    one.refresh()
    assert served(isolated_redis, model) == {"stable": "2", "canary": "3"}


def test_each_canary_run_counts_its_jobs_from_zero(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    for _ in range(2):
        registry_changes.relabel(store, model.name, {"canary": "2"}, 100, Rule(jobs=2, most_failed_percent=0))
        one.refresh()
        digest = served_models.read(store, model.name, "2").digest
        do(isolated_redis, model, digest)
        do(isolated_redis, model, "another")
        one.refresh()
        assert served(isolated_redis, model) == {"stable": "1", "canary": "2"}
        do(isolated_redis, model, digest)
        one.refresh()
        assert served(isolated_redis, model) == {"stable": "2"}
        labels = registry.labels(store, model.name)
        assert (labels.rule, labels.canary_run_id, labels.canary_percent) == (None, None, 5)
        registry_changes.rollback(store, model.name)
        one.refresh()
        assert served(isolated_redis, model) == {"stable": "1"}


def test_prune_deletes_old_files_and_keeps_recently_used_ones(tmp_path: Path, model: Pushed) -> None:
    import os
    import time

    from upres.worker.model import prune

    kept = model.pull(tmp_path)
    old = [tmp_path / "models" / "old.safetensors", tmp_path / "openvino" / "old"]
    for path in old:
        path.parent.mkdir(exist_ok=True)
    old[0].touch()
    old[1].mkdir()
    for path in old:
        os.utime(path, (0, time.time() - 40 * 24 * 3600))
    prune(tmp_path)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept.files.values())
    assert open_folder(model.folder / "1").bytes == kept.bytes


def test_a_canary_whose_jobs_run_out_of_time_does_not_become_stable(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    """The jobs' workers do not tell how they ended: heartbeats of other workers do."""
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    registry_changes.relabel(store, model.name, {"canary": "2"}, 100, Rule(jobs=3, most_failed_percent=40))
    one.refresh()
    digest = served_models.read(store, model.name, "2").digest
    for expected in ({"stable": "1", "canary": "2"}, {"stable": "1"}):
        do(isolated_redis, model, digest)
        job_id = submit(isolated_redis)
        leases.at_work(isolated_redis, taken(isolated_redis), model.name, digest)
        isolated_redis.zadd(keys.DEADLINES, {job_id: 1})
        leases.recover(isolated_redis)
        one.refresh()
        assert served(isolated_redis, model) == expected
