"""Tests of hints in Redis that another release or program has written in another form: they are ignored."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from tests.support import mixable
from tests.support.leasing import submit, taken
from upres.core import keys, registry_changes, served_models, workers
from upres.core.api import JobRequest
from upres.core.enqueue import IdempotencyRecord
from upres.core.errors import IdempotencyConflict
from upres.core.served_models import ModelRef
from upres.core.storage import Store
from upres.core.workers import Worker
from upres.embedded.stack import Local
from upres.worker.checkpoints import Checkpoints
from upres.worker.engine.device import choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.enlarging import BandKind
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.encode import Encoders
from upres.worker.model_cache import ModelCache


@pytest.fixture
def models(local: Local, store: Store, isolated_redis: Redis) -> Iterator[ModelCache]:
    with DeviceThread() as thread, Decoders(1, 1_000_000) as decoders:
        address = local.settings.redis_url.removesuffix("/0") + "/1"
        settings = local.settings.model_copy(update={"redis_url": address})
        yield ModelCache(settings, store, choose("cpu"), thread, decoders)


@pytest.fixture
def ref(store: Store, tmp_path: Path) -> tuple[str, ModelRef]:
    """A small model that no other test uses."""
    name = f"hint-{secrets.token_hex(3)}"
    mixable.write(tmp_path, name, 1)
    registry_changes.push(store, tmp_path / name / "1")
    return name, served_models.read(store, name, "1")


HINTS = (b"many", b'{"tile": 256}', b'{"tile": 0, "batches": {}}', b"9" * 5000, b"\xff", "list")


@pytest.mark.parametrize("hint", HINTS, ids=range(len(HINTS)))
def test_an_unreadable_tile_size_stops_no_worker(
    models: ModelCache,
    ref: tuple[str, ModelRef],
    isolated_redis: Redis,
    hint: bytes | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = f"upres:limits:{secrets.token_hex(32)}"
    monkeypatch.setattr(keys, "limits", lambda *_: key)
    if hint == "list":
        isolated_redis.rpush(key, "1")
    else:
        isolated_redis.set(key, hint)
    with models.use(*ref) as loaded:
        assert loaded.engine.limits.tile == 640
        assert loaded.engine.upscale(np.zeros((8, 8, 3), np.uint8), 2).shape == (16, 16, 3)


@pytest.mark.parametrize("parts", [b"0-8", b"0-8,8-16"])
@pytest.mark.parametrize("form", [b"%s", b"%s,many", b"%s,20-30", b"%s,16-16", b"[%s]", b"%s,\xff", b'{"rows": "%s"}'])
def test_checkpoints_are_read_up_to_the_first_that_is_in_another_form(
    isolated_redis: Redis, store: Store, parts: bytes, form: bytes
) -> None:
    submit(isolated_redis)
    lease = taken(isolated_redis)._replace(attempt=2)
    encoders, work = Encoders(1), "upres:work:" + "0" * 64
    band = np.full((8, 4, 3), 7, np.uint8)
    for rows in ("0-8", "8-16", "20-30", "16-16"):
        store.put(keys.checkpoint(lease.job_id, work, rows), encoders.png(band), "image/png")
    isolated_redis.hset(keys.run(lease.job_id), mapping={"parts": form % parts, "parts_of": work})
    checkpoints = Checkpoints(isolated_redis, store, encoders, lease, work)
    found = list(checkpoints.load(lambda _: BandKind((8, 4, 3), np.dtype(np.uint8))))
    wanted = 0 if form[:1] in b"[{" else len(parts.split(b","))
    assert (len(found), checkpoints.rows) == (wanted, 8 * wanted)


@pytest.mark.parametrize("record", [b"no JSON", b"{}", b'{"job": "x", "request": 5}'])
def test_an_idempotency_record_of_another_form_is_a_conflict_and_no_second_job(
    isolated_redis: Redis, record: bytes
) -> None:
    found = IdempotencyRecord("a-key", JobRequest(image_url="http://h/x.png", upscale_factor=2))
    isolated_redis.set(found.key, record)
    with pytest.raises(IdempotencyConflict, match="cannot find any more; use a new key"):
        found.find(isolated_redis)


def test_a_worker_whose_name_is_no_text_hides_no_other(isolated_redis: Redis) -> None:
    one = Worker(name="w", state="ready", device="d", models=(), digests=(), slots=1, jobs=())
    workers.publish(isolated_redis, one)
    isolated_redis.zadd(keys.WORKERS, {b"w\xff": 1e15})
    assert workers.listing(isolated_redis) == [one]
