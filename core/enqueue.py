"""Into the queue: job, first event, deadline and idempotency record in one Redis transaction, or nothing."""

import hashlib
import json
from contextlib import suppress
from typing import Any

from redis import Redis, WatchError
from redis.client import Pipeline
from rq import Queue
from rq.job import Job

from upres.core import events, keys
from upres.core.api import JobRequest
from upres.core.errors import IdempotencyConflict, QueueUnavailable
from upres.core.schema import JobMessage, Queued
from upres.core.script import call

ENQUEUE_ATTEMPTS = 5
"""A transaction is tried again when a key it watches changed, or its connection broke."""


class Record:
    """What an Idempotency-Key of some owner stands for: a job id, and the digest of the request that made it."""

    def __init__(self, key: str, request: JobRequest, owner: str | None = None) -> None:
        self.key = keys.idempotency(f"{owner or ''}:{key}")
        # A repeated upload has another key: what it holds cannot be compared.
        given = request.model_dump_json(exclude={"image_key"})
        self._digest = hashlib.sha256(given.encode()).hexdigest()

    def find(self, connection: "Redis | Pipeline") -> str | None:
        """The job that this key made before; IdempotencyConflict when it was for another request."""
        raw = connection.get(self.key)
        if not isinstance(raw, bytes):
            return None
        found = json.loads(raw)
        if found["request"] != self._digest:
            raise IdempotencyConflict(
                "This Idempotency-Key was used for a different request; use a new key for a new request."
            )
        return str(found["job_id"])

    def write(self, pipeline: Pipeline, job_id: str) -> None:
        """Remember the job, as part of the transaction that enqueues it."""
        value = json.dumps({"job_id": job_id, "request": self._digest})
        pipeline.set(self.key, value, ex=keys.IDEMPOTENCY_SECONDS)


def enqueue(queue: Queue, message: JobMessage, high: bool = False, record: Record | None = None) -> str:
    """The id of the job that is enqueued now: this one, or the one that the same record made meanwhile.

    The job's own stream is watched, so that a transaction whose answer was lost is not repeated: it
    is found to have gone through. QueueUnavailable when it never does.
    """
    stream = keys.events(message.job_id)
    position = 0 if high else int(queue.connection.llen(queue.key))
    for _ in range(ENQUEUE_ATTEMPTS):
        with queue.connection.pipeline(transaction=True) as pipeline:
            untyped: Any = pipeline
            untyped.watch(stream, *([record.key] if record else []))
            if record and (earlier := record.find(pipeline)):
                return earlier
            if pipeline.exists(stream):
                return message.job_id
            pipeline.multi()
            queue.enqueue_job(_rq_job(queue, message), pipeline=pipeline, at_front=high)
            events.append(pipeline, _first_event(message, position))
            seconds = (message.deadline - message.submitted_at).total_seconds()
            fields = (message.model, message.owner or "", message.webhook_url or "")
            call(pipeline, "begin", message.job_id, seconds, *fields)
            if record:
                record.write(pipeline, message.job_id)
            with suppress(WatchError):
                pipeline.execute()
                return message.job_id
    raise QueueUnavailable("The job queue is too busy; nothing was accepted. Try again in a few seconds.")


def _rq_job(queue: Queue, message: JobMessage) -> Job:
    return queue.create_job(
        keys.JOB_FUNCTION,
        # Older workers refuse what they do not know; what nobody asked for is not there.
        args=(message.model_dump(mode="json", exclude_defaults=True),),
        job_id=message.job_id,
        description=message.job_id,
        timeout=keys.JOB_SECONDS,
        ttl=keys.EVENTS_SECONDS,
    )


def _first_event(message: JobMessage, position: int) -> Queued:
    return Queued(
        job_id=message.job_id,
        upscale_factor=message.upscale_factor,
        model=message.model,
        model_version=message.model_version,
        output_format=message.output_format,
        position=position,
        deadline=message.deadline,
        owner=message.owner,
    )
