"""What the worker does with jobs that nobody should have sent."""

import secrets
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.timeouts import TimerDeathPenalty

from client import Client
from core import events, keys
from core.queue import open_queue
from core.schema import Failed, JobMessage, now
from function import submit as submit_module
from function.services import Services
from infra.local import Local
from tests.conftest import SAMPLES
from tests.test_events import queued
from tests.test_local import wait_until
from worker.slots import AllowedJob


def enqueue(redis: Redis, function: str, *arguments: Any) -> tuple[Queue, Job]:
    queue = open_queue(redis)
    return queue, queue.enqueue(function, args=arguments)


def message(job_id: str, **changed: Any) -> dict[str, Any]:
    """What the function would have put into the queue."""
    fields = {"image_key": keys.upload(job_id), "upscale_factor": 4, "model": "faithful", "output_format": "auto"}
    return JobMessage(job_id=job_id, submitted_at=now(), **{**fields, **changed}).model_dump(mode="json")


@pytest.mark.parametrize("function", ["os.system", "subprocess.run", "worker.job.Report", "builtins.print"])
def test_a_forged_function_is_not_run(redis: Redis, tmp_path: Any, function: str) -> None:
    witness = tmp_path / "witness"
    queue, job = enqueue(redis, function, f"touch {witness}")
    wait_until(lambda: job.get_status() == "failed")
    assert not witness.exists()
    result = job.latest_result()
    assert result is not None
    assert "PermissionError" in (result.exc_string or "")
    queue.failed_job_registry.remove(job, delete_job=True)


def test_forged_callbacks_are_not_run(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = secrets.token_hex(16)
    queue = open_queue(redis)
    callbacks = {"on_success": Callback("os.getpid"), "on_failure": Callback("builtins.exit")}
    job = queue.enqueue("os.system", "true", job_id=job_id, **callbacks)
    wait_until(lambda: job.get_status() == "failed")
    result = job.latest_result()
    assert result is not None
    assert "PermissionError" in (result.exc_string or "")  # and not what a callback raised
    assert not redis.exists(keys.events(job_id))
    queue.failed_job_registry.remove(job, delete_job=True)


def test_a_job_that_takes_too_long_fails(redis: Redis, local: Local) -> None:
    job_id = secrets.token_hex(16)
    local.store.put(keys.upload(job_id), (SAMPLES / "coffee.png").read_bytes())
    events.append(redis, queued(job_id))
    open_queue(redis).enqueue(keys.JOB_FUNCTION, message(job_id, upscale_factor=8), job_timeout=1, result_ttl=0)
    wait_until(lambda: events.is_terminal(events.read(redis, job_id)[-1][1]))
    _, failed = events.read(redis, job_id)[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("timed_out", True)


@pytest.mark.parametrize("retries_left", [1, 0])
def test_a_job_whose_workers_died_fails_after_the_last(redis: Redis, retries_left: int) -> None:
    """What RQ calls when a lease has run out; after the last attempt somebody has to say how it ended."""
    job_id = secrets.token_hex(16)
    events.append(redis, queued(job_id))
    job = AllowedJob.create(keys.JOB_FUNCTION, id=job_id, connection=redis)
    job.retries_left = retries_left
    job.execute_failure_callback(TimerDeathPenalty, AbandonedJobError, AbandonedJobError(), None)
    told = [event for _, event in events.read(redis, job_id)]
    assert [event.type for event in told] == (["queued"] if retries_left else ["queued", "failed"])
    if not retries_left:
        assert isinstance(told[-1], Failed)
        assert told[-1].code == "worker_lost"


def test_accepted_jobs_are_tried_three_times(redis: Redis, local: Local, client: Client) -> None:
    services = Services(local.settings)
    job = submit_module._rq_job(services.queue, JobMessage.model_validate(message(secrets.token_hex(16))))
    assert job.retries_left == keys.ATTEMPTS - 1


def test_a_forged_message_is_refused(redis: Redis, client: Client, png: bytes) -> None:
    queue, job = enqueue(redis, keys.JOB_FUNCTION, {"job_id": "x", "surprise": True})
    wait_until(lambda: job.get_status() == "failed")
    queue.failed_job_registry.remove(job, delete_job=True)
    assert client.upscale(png, 2).result.width == 128  # the worker is well


def test_a_model_that_the_worker_does_not_have(redis: Redis) -> None:
    job_id = secrets.token_hex(16)
    events.append(redis, queued(job_id))
    enqueue(redis, keys.JOB_FUNCTION, message(job_id, model="other"))
    wait_until(lambda: events.is_terminal(events.read(redis, job_id)[-1][1]))
    _, failed = events.read(redis, job_id)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "unknown_model"


def test_finished_jobs_leave_only_their_events(redis: Redis, client: Client, png: bytes) -> None:
    job_id = client.upscale(png, 2).job_id
    wait_until(lambda: not redis.exists(f"rq:job:{job_id}"))
    left = list(redis.scan_iter(f"*{job_id}*"))
    assert left == [keys.events(job_id).encode()]
