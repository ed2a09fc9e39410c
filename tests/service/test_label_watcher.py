"""Several workers and one label: who holds a switch, and who does not."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from tests.support.pushing import Pushed
from upres.core import keys, registry, served_models, workers
from upres.core.errors import ModelError, ModelUnavailable
from upres.core.manifest import Rule
from upres.core.served_models import ModelRef
from upres.core.storage import Store
from upres.core.workers import Worker
from upres.embedded.stack import Local
from upres.worker.engine.device import Memory, choose
from upres.worker.label_watcher import LabelWatcher
from upres.worker.model import Model, open_folder
from upres.worker.model_cache import ModelCache


class Shelf:
    """Models of one worker, which loads what it is told that it can."""

    def __init__(self, cannot: dict[str, Exception] | None = None) -> None:
        self.cannot = cannot or {}
        self.loaded: dict[str, ModelRef] = {}
        self.kept: set[str] = set()

    @contextmanager
    def use(self, name: str, ref: ModelRef) -> Iterator[None]:
        if ref.version in self.cannot:
            raise self.cannot[ref.version]
        self.loaded[ref.digest] = ref
        yield

    def has(self, digest: str) -> bool:
        return digest in self.loaded

    def ready(self) -> list[Model]:
        return []

    def keep(self, digests: set[str]) -> None:
        self.kept = digests


class One:
    """One worker of a fleet, without its process."""

    def __init__(self, local: Local, redis: Redis, store: Store, name: str, cannot: Any = None) -> None:
        self.shelf = Shelf(cannot)
        self.name, self.model, self.redis = f"w-{secrets.token_hex(3)}", name, redis
        settings = local.settings.model_copy(update={"model": name, "redis_url": f"{local.settings.redis_url[:-1]}1"})
        self.watcher = LabelWatcher(settings, store, cast(ModelCache, self.shelf), Memory(choose("cpu")))
        self.state = "ready"

    def refresh(self) -> None:
        """Twice, for it hears of itself as of others: by what it said."""
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


def relabel(model: Pushed, **changes: str | None) -> None:
    registry.relabel(model.store, model.name, changes)


def test_a_switch_waits_for_all_that_serve_the_model(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first, second, other = (One(local, isolated_redis, store, model.name) for _ in range(3))
    first.refresh()
    second.refresh()
    other.tell()  # serves something else, and holds nobody up
    relabel(model, stable="2")
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}
    second.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}


def test_one_that_stops_holds_nobody_up(local: Local, isolated_redis: Redis, store: Store, model: Pushed) -> None:
    first, second = (One(local, isolated_redis, store, model.name) for _ in range(2))
    first.refresh()
    second.refresh()
    second.state = "stopping"
    second.tell()
    relabel(model, stable="2")
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}


def test_one_that_cannot_does_not_roll_the_others_back(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    first = One(local, isolated_redis, store, model.name)
    first.refresh()
    relabel(model, stable="2")
    first.refresh()
    sick = One(local, isolated_redis, store, model.name, {"2": ModelUnavailable("its disk is full")})
    with pytest.raises(ModelUnavailable):
        sick.watcher.prepare(model.name)  # it does not start
    first.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}


def test_one_that_refuses_a_new_version_keeps_it_from_all(
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


def test_one_that_starts_has_ready_what_is_offered_too(
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
    assert late.shelf.kept == set(late.shelf.loaded)  # neither leaves before the switch
    held.watcher.close()
    workers.deregister(isolated_redis, held.name)
    for one in (first, late):
        one.refresh()
        one.refresh()
    assert served(isolated_redis, model) == {"stable": "2"}
    assert late.shelf.kept == {ref.digest for ref in late.shelf.loaded.values() if ref.version == "2"}


def test_a_rule_that_cannot_be_carried_out_blocks_nothing(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    lossy = [{**one, "quality": {"psnr_loss_db": 0.5}} for one in model.fields["networks"]]
    model.push("3", networks=lossy)
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    rule = Rule(jobs=1, most_failed_percent=0)
    registry.relabel(store, model.name, {"canary": "3"}, rule=rule)
    one.refresh()
    trial = registry.labels(store, model.name).canary_run_id
    isolated_redis.hset(keys.outcomes(model.name), f"{trial}:well", 5)
    relabel(model, stable="2")
    one.refresh()
    assert served(isolated_redis, model) == {"stable": "2", "canary": "3"}


def test_a_canary_begins_anew_each_time(local: Local, isolated_redis: Redis, store: Store, model: Pushed) -> None:
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    for _ in range(2):
        registry.relabel(store, model.name, {"canary": "2"}, 100, Rule(jobs=2, most_failed_percent=0))
        one.refresh()
        digest = served_models.read(store, model.name, "2").digest
        one.watcher.count(model.name, digest, well=True)
        one.watcher.count(model.name, "another", well=True)
        one.refresh()
        assert served(isolated_redis, model) == {"stable": "1", "canary": "2"}
        one.watcher.count(model.name, digest, well=True)
        one.refresh()
        assert served(isolated_redis, model) == {"stable": "2"}
        labels = registry.labels(store, model.name)
        assert (labels.rule, labels.canary_run_id, labels.canary_percent) == (None, None, 5)
        registry.rollback(store, model.name)
        one.refresh()
        assert served(isolated_redis, model) == {"stable": "1"}


def test_what_the_store_says_is_not_lost_when_it_is_away(
    local: Local, isolated_redis: Redis, store: Store, model: Pushed
) -> None:
    one = One(local, isolated_redis, store, model.name)
    one.refresh()
    model.store.put(keys.labels(model.name), b"no labels")
    with pytest.raises(ModelError):
        one.refresh()
    assert served(isolated_redis, model) == {"stable": "1"}


def test_old_files_leave_the_cache(tmp_path: Path, model: Pushed) -> None:
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
