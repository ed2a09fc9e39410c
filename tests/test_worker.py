"""What the worker does with jobs that nobody should have sent."""

import secrets
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from client import Client
from core import events, keys
from core.queue import open_queue
from core.schema import Failed, JobMessage, now
from tests.test_events import queued
from tests.test_local import wait_until


def enqueue(redis: Redis, function: str, *arguments: Any) -> tuple[Queue, Job]:
    queue = open_queue(redis)
    return queue, queue.enqueue(function, args=arguments)


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


def test_a_forged_message_is_refused(redis: Redis, client: Client, png: bytes) -> None:
    queue, job = enqueue(redis, keys.JOB_FUNCTION, {"job_id": "x", "surprise": True})
    wait_until(lambda: job.get_status() == "failed")
    queue.failed_job_registry.remove(job, delete_job=True)
    assert client.upscale(png, 2).result.width == 128  # the worker is well


def test_a_model_that_the_worker_does_not_have(redis: Redis) -> None:
    job_id = secrets.token_hex(16)
    message = JobMessage(
        job_id=job_id,
        image_key="uploads/x",
        upscale_factor=4,
        model="other",
        output_format="auto",
        submitted_at=now(),
    )
    events.append(redis, queued(job_id))
    enqueue(redis, keys.JOB_FUNCTION, message.model_dump(mode="json"))
    wait_until(lambda: events.is_terminal(events.read(redis, job_id)[-1][1]))
    _, failed = events.read(redis, job_id)[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "unknown_model"


def test_finished_jobs_leave_only_their_events(redis: Redis, client: Client, png: bytes) -> None:
    job_id = client.upscale(png, 2).job_id
    wait_until(lambda: not redis.exists(f"rq:job:{job_id}"))
    left = list(redis.scan_iter(f"*{job_id}*"))
    assert left == [keys.events(job_id).encode()]
