"""Several processes change the registry at once: no model, label or version is lost, and who loses a race is told.

Each test runs with a store that honours conditional writes (moto), and with one that ignores them (rclone), where a
lock in Redis is used. Threads stand for the processes: they share nothing but the knowledge of what the store honours.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from redis import Redis

from tests.support import stores
from tests.support.pushing import small_version
from upres.core import guarded_writes, keys, registry, registry_changes, registry_lock
from upres.core.errors import ModelError, StoreUnavailable
from upres.core.storage import ObjectChanged, Store
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker
MANY = 3


@pytest.fixture(scope="module")
def honouring(local: Local) -> Iterator[Store]:
    with stores.honouring("conditional", local.settings.redis_url) as opened:
        yield opened


@pytest.fixture(params=["honours", "ignores"])
def any_store(request: pytest.FixtureRequest, store: Store) -> Store:
    honours: Store = request.getfixturevalue("honouring") if request.param == "honours" else store
    return honours


@pytest.fixture
def name() -> str:
    return f"raced-{secrets.token_hex(4)}"


def together(store: Store, *actions: Callable[[Store], object]) -> list[object]:
    """Run all actions at once; returns what each has returned or raised."""
    barrier = threading.Barrier(len(actions))

    def run(action: Callable[[Store], object]) -> object:
        barrier.wait(20)
        try:
            return action(store)
        except ModelError as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def push(folder: Path) -> Callable[[Store], object]:
    return lambda store: registry_changes.push(store, folder)


def test_it_is_found_out_whether_the_store_honours_conditional_writes(store: Store, honouring: Store) -> None:
    assert not guarded_writes.honours_conditions(store)
    assert guarded_writes.honours_conditions(honouring)
    assert guarded_writes.honours_conditions(honouring)  # the object for the trial is there already


def test_models_that_are_pushed_at_once_are_all_listed(any_store: Store, name: str, tmp_path: Path) -> None:
    names = [f"{name}-{number}" for number in range(MANY)]
    together(any_store, *(push(small_version(tmp_path / one, one)) for one in names))
    assert set(names) <= registry.index(any_store).models.keys()


def test_labels_that_are_set_at_once_are_all_kept(any_store: Store, name: str, tmp_path: Path) -> None:
    registry_changes.push(any_store, small_version(tmp_path / "1", name))
    labels = [f"label-{number}" for number in range(MANY)]

    def label(one: str) -> Callable[[Store], object]:
        return lambda store: registry_changes.relabel(store, name, {one: "1"})

    together(any_store, *(label(one) for one in labels))
    expected = dict.fromkeys(["stable", *labels], "1")
    assert registry.labels(any_store, name).labels == expected
    assert registry.index(any_store).models[name].labels.labels == expected


def test_of_different_folders_pushed_as_one_version_one_is_kept_whole(
    any_store: Store, name: str, tmp_path: Path
) -> None:
    folders = [small_version(tmp_path / f"{number}", name, number=number) for number in range(MANY)]
    ends = together(any_store, *(push(folder) for folder in folders))
    [winner] = [folder for folder, end in zip(folders, ends, strict=True) if not isinstance(end, ModelError)]
    told = [str(end) for end in ends if isinstance(end, ModelError)]
    assert all("has a version '1' with other contents" in one for one in told)
    registry.fetch(any_store, name, "1", tmp_path / "fetched")  # checks all digests
    fetched = {file.name: file.read_bytes() for file in (tmp_path / "fetched").iterdir()}
    assert fetched == {file.name: file.read_bytes() for file in winner.iterdir()}


def test_one_folder_pushed_by_several_at_once_is_no_error(any_store: Store, name: str, tmp_path: Path) -> None:
    folder = small_version(tmp_path / "1", name)
    assert not [end for end in together(any_store, *[push(folder)] * MANY) if isinstance(end, Exception)]
    registry.fetch(any_store, name, "1", tmp_path / "fetched")
    [version] = registry.index(any_store).models[name].versions
    assert version.version == "1"


def test_a_canary_that_several_promote_at_once_is_promoted_once(any_store: Store, name: str, tmp_path: Path) -> None:
    for version in "12":
        registry_changes.push(any_store, small_version(tmp_path / version, name, version))
    registry_changes.relabel(any_store, name, {"canary": "2"})
    together(any_store, *[lambda store: registry_changes.promote(store, name)] * MANY)
    now = registry.labels(any_store, name)
    assert (now.labels, now.before) == ({"stable": "2"}, ("1",))


class Interrupted(Exception):
    """The push ends here, as when its process is killed."""


class Dying(Store):
    """A store at whose write number `left` the process dies."""

    left = 0

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        self._count()
        return super().put(key, data, content_type)

    def put_if(self, key: str, data: bytes, etag: str | None) -> None:
        if key != keys.WRITE_PROBE:
            self._count()
        super().put_if(key, data, etag)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted


def test_a_push_that_dies_at_any_write_serves_no_half_version_and_is_repeated(
    any_store: Store, name: str, tmp_path: Path
) -> None:
    dying = Dying(any_store.settings, any_store._session)
    for writes in range(6):
        this, to = f"{name}-{writes}", tmp_path / f"{writes}"
        folder, other = small_version(to / "1", this), small_version(to / "other", this, number=1)
        dying.left = writes
        if writes < 5:  # claim, weights, manifest, labels, index
            with pytest.raises(Interrupted):
                registry_changes.push(dying, folder)
        else:
            registry_changes.push(dying, folder)
        if any_store.exists(keys.model(this, "1", "manifest.json")):
            registry.fetch(any_store, this, "1", to / "fetched")
        if writes:
            with pytest.raises(ModelError, match="with other contents"):
                registry_changes.push(any_store, other)
        registry_changes.push(any_store, folder)
        registry.fetch(any_store, this, "1", to / "repeated")
        assert registry.index(any_store).models[this].labels.labels == {"stable": "1"}


def test_a_write_whose_answer_was_lost_is_not_taken_for_that_of_another(
    honouring: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore writes again, and the condition does not hold any more, because the first write succeeded."""
    key, write = f"models/{secrets.token_hex(4)}/labels.json", Store.put_if

    def twice(self: Store, key: str, data: bytes, etag: str | None) -> None:
        write(self, key, data, etag)
        write(self, key, data, etag)

    monkeypatch.setattr(Store, "put_if", twice)
    calls: list[bytes | None] = []

    def make(found: bytes | None) -> bytes:
        calls.append(found)
        return b"made once"

    assert guarded_writes.change(honouring, key, make) == b"made once"
    assert calls == [None]


def test_a_document_that_others_change_all_the_time_is_given_up_with_a_sentence(
    honouring: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Store, key: str, data: bytes, etag: str | None) -> None:
        raise ObjectChanged("changed")

    assert guarded_writes.honours_conditions(honouring)
    monkeypatch.setattr(Store, "put_if", refuse)
    monkeypatch.setattr(guarded_writes, "LONGEST_PAUSE", 0)
    with pytest.raises(StoreUnavailable, match="being changed by others"):
        guarded_writes.change(honouring, "models/x/labels.json", lambda found: b"new")


def test_without_conditional_writes_and_redis_a_warning_says_what_may_be_lost(
    local: Local, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = local.settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})
    store = Store(away, local.store._session)
    with caplog.at_level(logging.WARNING, "upres.registry"):
        registry_changes.push(store, small_version(tmp_path / "1", name))
        registry_changes.push(store, small_version(tmp_path / "2", name, "2"))
    [warning] = caplog.records
    assert "may get lost" in warning.getMessage()
    assert name in registry.index(store).models


def test_a_lock_that_was_taken_although_the_answer_was_lost_is_held(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py repeats the command, and the key is there already: it is this process's own."""
    monkeypatch.setattr(registry_lock, "LOCK_SECONDS", 3)
    take = Redis.set

    def twice(self: Redis, *arguments: Any, **options: Any) -> object:
        take(self, *arguments, **options)
        return take(self, *arguments, **options)

    monkeypatch.setattr(Redis, "set", twice)
    with registry_lock.held(local.settings) as check_held:
        check_held()


@pytest.mark.parametrize("answer", ["weak ETag", "501", "409", "no effect"])
def test_a_store_with_other_answers_to_conditional_writes_gets_a_lock(
    honouring: Store, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    def answers(self: Store, request: Any, key: str, data: bytes, etag: str | None) -> None:
        if answer == "weak ETag":  # a proxy compresses: W/ never matches (RFC 9110, 8.8.3.2)
            request(self, key, data, etag and f"W/{etag}")
        elif answer != "no effect":
            response: Any = {"Error": {"Code": answer}}  # as botocore reads an answer without a body
            with self._mapped(key):
                raise ClientError(response, "PutObject")

    write = Store.put_if
    monkeypatch.setattr(Store, "put_if", lambda *given: answers(given[0], write, *given[1:]))
    monkeypatch.setattr(guarded_writes, "_honours", {})
    key = f"models/{secrets.token_hex(4)}/labels.json"
    for content in (b"1", b"2"):
        guarded_writes.change(honouring, key, lambda found, content=content: content)  # type: ignore[misc]
        assert honouring.get(key) == content
    assert not guarded_writes.honours_conditions(honouring)


def test_a_lock_that_was_lost_meanwhile_writes_nothing(local: Local) -> None:
    key = f"models/{secrets.token_hex(4)}/labels.json"

    def make(found: bytes | None) -> bytes:
        from upres.core.queue import connect

        with connect(local.settings) as connection:
            connection.delete(keys.REGISTRY_LOCK)  # as if it had ended: the process slept for more than a minute
        return b"late"

    with pytest.raises(StoreUnavailable, match=registry_lock.BUSY[:20]):
        guarded_writes.change(local.store, key, make)
    assert not local.store.exists(key)
