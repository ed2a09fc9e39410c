"""Jobs that wait in the queue, for benchmarks that need many."""

from datetime import timedelta

from redis import Redis

from upres.core import keys
from upres.core.enqueue import enqueue
from upres.core.job_message import JobMessage
from upres.core.queue import open_queue
from upres.core.schema import now


def fill(redis: Redis, jobs: int) -> list[str]:
    """Enqueue jobs; returns their ids."""
    queue = open_queue(redis)
    ids = [f"{number:032x}" for number in range(jobs)]
    for job_id in ids:
        message = JobMessage(
            job_id=job_id,
            image_key=keys.upload("a"),
            upscale_factor=4,
            model="faithful",
            model_version="1",
            model_digest="d",
            output_format="auto",
            submitted_at=now(),
            deadline=now() + timedelta(days=1),
        )
        enqueue(queue, message)
    return ids
