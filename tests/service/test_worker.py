"""The worker refuses forged jobs, fails jobs that it cannot finish, and deletes the data of finished jobs."""

import json
import secrets
import zlib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback
from rq.job import Job

from tests.support.events import queued
from tests.support.leasing import ended, message
from tests.support.paths import SAMPLES
from upres.client import Client
from upres.core import events, keys
from upres.core.queue import open_queue
from upres.core.schema import now
from upres.embedded.stack import Local


def refused(redis: Redis, job_id: str) -> None:
    """Assert that the job fails with job_refused and becomes a dead letter."""
    assert ended(redis, job_id).code == "job_refused"
    assert redis.zscore(keys.DEAD, job_id) is not None
    assert redis.exists(keys.record(job_id))  # kept, so that an operator can inspect it


@pytest.mark.parametrize(
    "function", ["os.system", "subprocess.getoutput", "subprocess.run", "upres.worker.job.Report", "builtins.print"]
)
def test_job_with_forged_function_is_refused_and_not_run(redis: Redis, tmp_path: Any, function: str) -> None:
    witness = tmp_path / "witness"
    job = open_queue(redis).enqueue(function, f"touch {witness}")
    refused(redis, job.id)
    assert not witness.exists()


def touch(job: Job, *arguments: object) -> None:
    """A callback of RQ that creates the file that the job names."""
    Path(job.args[0]).touch()


@pytest.mark.parametrize("on_failure", [touch, "builtins.exit"], ids=["touch", "exit"])
def test_job_with_forged_callbacks_is_refused_and_worker_stays_alive(
    redis: Redis, tmp_path: Path, local: Local, on_failure: Any
) -> None:
    witness = tmp_path / "witness"
    job_id = secrets.token_hex(16)
    callbacks = {"on_success": Callback(touch), "on_failure": Callback(on_failure)}
    open_queue(redis).enqueue(keys.JOB_FUNCTION, str(witness), job_id=job_id, **callbacks)
    refused(redis, job_id)
    assert not witness.exists()
    local.check()


def push_record(redis: Redis, job_id: str, data: bytes) -> None:
    """Add a job with this data in its record to the queue, without RQ."""
    redis.hset(keys.record(job_id), mapping={"data": data, "created_at": "x"})
    redis.rpush(keys.WAITING, job_id)


@pytest.mark.parametrize(
    "data", [b"\x80\x04\x95pickle", b"not zlib", b"[]", b"", zlib.compress(b"[]"), zlib.compress(b"{}")], ids=range(6)
)
def test_job_with_invalid_record_is_refused(redis: Redis, data: bytes) -> None:
    job_id = secrets.token_hex(16)
    push_record(redis, job_id, data)
    refused(redis, job_id)


@pytest.mark.parametrize(("padding", "code"), [(0, "model_not_found"), (100_000_000, "job_refused")])
def test_job_with_a_record_that_unpacks_to_too_many_bytes_is_refused(redis: Redis, padding: int, code: str) -> None:
    """Without padding the same record is valid, and the job fails later, because its model does not exist."""
    job_id = secrets.token_hex(16)
    job: list[Any] = [keys.JOB_FUNCTION, None, [message(job_id, model="other", model_digest="0" * 64)], {}]
    push_record(redis, job_id, zlib.compress(json.dumps(job).encode() + b" " * padding))
    assert ended(redis, job_id).code == code


@pytest.mark.parametrize(
    "forged",
    [
        {"job_id": "0" * 32},  # the id of another job
        {"image_url": None, "image_key": None},
        {"image_url": "http://127.0.0.1/"},  # an upload as well as a URL
        {"upscale_factor": 9},
        {"image_url": None, "image_key": "models/faithful/1/manifest.json"},
    ],
    ids=str,
)
def test_job_with_forged_message_is_refused(redis: Redis, forged: dict[str, Any], local: Local) -> None:
    """The message differs from a valid one (see the test above) only in these fields."""
    job_id = secrets.token_hex(16)
    open_queue(redis).enqueue(keys.JOB_FUNCTION, message(job_id) | forged, job_id=job_id)
    refused(redis, job_id)
    local.check()


def test_worker_still_works_after_refused_jobs(redis: Redis, client: Client, png: bytes) -> None:
    job_id = secrets.token_hex(16)
    push_record(redis, job_id, b"not zlib")
    refused(redis, job_id)
    assert client.upscale(png, 2).result.width == 128


def test_job_id_without_a_record_is_dropped(redis: Redis, client: Client, png: bytes) -> None:
    redis.rpush(keys.WAITING, "nothing", b"\xff\xfe")
    assert client.upscale(png, 2).result.width == 128
    assert redis.llen(keys.POPPED) == 0


def test_running_job_fails_when_its_deadline_passes(client: Client, redis: Redis) -> None:
    job_id = client.submit(SAMPLES / "coffee.png", 8, deadline_seconds=1).job_id
    failed = ended(redis, job_id)
    assert (failed.code, failed.retryable) == ("deadline_exceeded", True)
    assert client.status(job_id).deadline < now()


def test_job_with_unknown_model_fails_with_model_not_found(redis: Redis) -> None:
    job_id = secrets.token_hex(16)
    events.append(redis, queued(job_id))
    open_queue(redis).enqueue(keys.JOB_FUNCTION, message(job_id, model="other", model_digest="0" * 64), job_id=job_id)
    assert ended(redis, job_id).code == "model_not_found"


def test_finished_job_leaves_only_its_events_in_redis(redis: Redis, client: Client, png: bytes) -> None:
    job_id = client.upscale(png, 2).job_id
    assert list(redis.scan_iter(f"*{job_id}*")) == [keys.events(job_id).encode()]
    for place in (keys.LEASES, keys.DEADLINES):
        assert redis.zscore(place, job_id) is None
