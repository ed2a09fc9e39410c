"""What the worker does with jobs that nobody should have sent, and with those that take too long."""

import secrets
import zlib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback

from tests.support.events import queued
from tests.support.leasing import ended, message
from tests.support.paths import SAMPLES
from upres.client import Client
from upres.core import events, keys
from upres.core.queue import open_queue
from upres.core.schema import now
from upres.embedded.stack import Local


def refused(redis: Redis, job_id: str) -> None:
    assert ended(redis, job_id).code == "job_refused"
    assert redis.zscore(keys.DEAD, job_id) is not None
    assert redis.exists(keys.record(job_id))  # an operator can look at it


@pytest.mark.parametrize("function", ["os.system", "subprocess.run", "worker.job.Report", "builtins.print"])
def test_a_forged_function_is_not_run(redis: Redis, tmp_path: Any, function: str) -> None:
    witness = tmp_path / "witness"
    job = open_queue(redis).enqueue(function, f"touch {witness}")
    refused(redis, job.id)
    assert not witness.exists()


def test_forged_callbacks_are_not_run(redis: Redis, tmp_path: Path, local: Local) -> None:
    witness = tmp_path / "witness"
    job_id = secrets.token_hex(16)
    callbacks = {"on_success": Callback("os.getpid"), "on_failure": Callback("builtins.exit")}
    open_queue(redis).enqueue(keys.JOB_FUNCTION, f"touch {witness}", job_id=job_id, **callbacks)
    refused(redis, job_id)
    assert not witness.exists()
    local.check()


BOMB = zlib.compress(b"[" + b" " * 100_000_000 + b"]")


@pytest.mark.parametrize("data", [b"\x80\x04\x95pickle", b"not zlib", b"[]", b"", BOMB], ids=range(5))
def test_a_record_that_is_none_is_refused(redis: Redis, data: bytes) -> None:
    job_id = secrets.token_hex(16)
    redis.hset(keys.record(job_id), mapping={"data": data, "created_at": "x"})
    redis.rpush(keys.WAITING, job_id)
    refused(redis, job_id)


def test_a_forged_message_is_refused(redis: Redis, client: Client, png: bytes) -> None:
    job_id = secrets.token_hex(16)
    good = message(job_id)
    key = keys.upload(secrets.token_hex(16))
    for forged in (
        {"job_id": job_id, "surprise": True},
        message(secrets.token_hex(16)),  # of another job
        good | {"image_url": None, "image_key": None},
        good | {"image_url": "http://127.0.0.1/", "image_key": key},
        good | {"upscale_factor": 3},
        good | {"image_url": None, "image_key": "models/faithful/1/manifest.json"},
    ):
        open_queue(redis).enqueue(keys.JOB_FUNCTION, forged, job_id=(job_id := secrets.token_hex(16)))
        refused(redis, job_id)
    assert client.upscale(png, 2).result.width == 128  # the worker is well


def test_an_id_without_a_job_is_forgotten(redis: Redis, client: Client, png: bytes) -> None:
    redis.rpush(keys.WAITING, "nothing", b"\xff\xfe")
    assert client.upscale(png, 2).result.width == 128
    assert redis.llen(keys.POPPED) == 0


def test_a_deadline_ends_a_running_job(client: Client, redis: Redis) -> None:
    job_id = client.submit(SAMPLES / "coffee.png", 8, deadline_seconds=1).job_id
    failed = ended(redis, job_id)
    assert (failed.code, failed.retryable) == ("deadline_exceeded", True)
    assert client.status(job_id).deadline < now()


def test_a_model_that_the_worker_does_not_have(redis: Redis) -> None:
    job_id = secrets.token_hex(16)
    events.append(redis, queued(job_id))
    open_queue(redis).enqueue(keys.JOB_FUNCTION, message(job_id, model="other", model_digest="0" * 64), job_id=job_id)
    assert ended(redis, job_id).code == "model_not_found"


def test_finished_jobs_leave_only_their_events(redis: Redis, client: Client, png: bytes) -> None:
    job_id = client.upscale(png, 2).job_id
    assert list(redis.scan_iter(f"*{job_id}*")) == [keys.events(job_id).encode()]
    for place in (keys.LEASES, keys.DEADLINES):
        assert redis.zscore(place, job_id) is None
