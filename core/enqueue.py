"""Enqueue a job: its record, first event, deadline and idempotency record are written in one Redis transaction."""

import hashlib
import json
import secrets
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from pydantic import Field
from redis import Redis, WatchError
from redis.client import Pipeline
from rq import Queue
from rq.job import Job

from upres.core import keys
from upres.core.api import JobRequest
from upres.core.errors import IdempotencyConflict, QueueUnavailable
from upres.core.job_message import IGNORABLE, JobMessage
from upres.core.schema import Queued, TolerantModel
from upres.core.script import call
from upres.core.tolerance import or_none

ENQUEUE_ATTEMPTS = 5
"""Maximum number of attempts at the transaction; it is retried when a watched key changes or the connection breaks."""


class Enqueued(NamedTuple):
    """The id of a job in the queue, and whether this call created the job."""

    job_id: str
    created: bool
    """False when an earlier request with the same Idempotency-Key created the job."""


class FirstRequest(TolerantModel):
    """What is stored under an Idempotency-Key: the job that the first request with it created."""

    job_id: str = Field(description="Id of the job.")
    request: str = Field(description="SHA-256 of that request, in hexadecimal.")


class JobRecord(Protocol):
    """Says in Redis, under a key, which job was made for something, so that it is made once."""

    key: str

    def find(self, connection: "Redis | Pipeline") -> str | None:
        """Return the id of the job that was made before; None when there is none, or when it has to be made again."""
        ...

    def write(self, pipeline: Pipeline, job_id: str) -> None:
        """Add the storing of the record to the transaction that enqueues the job."""
        ...


class IdempotencyRecord:
    """The record of an owner's Idempotency-Key in Redis: the id of the job, and the digest of the request."""

    def __init__(self, key: str, request: JobRequest, owner: str | None = None) -> None:
        self.key = keys.idempotency(f"{owner or ''}:{key}")
        # The image is part of the digest. Without API keys all clients have the same owner: whoever guesses the key of
        # another one gets no job without the same image. A client that repeats a request may upload the image again.
        upload = keys.upload_content(request.image_key) if request.image_key else ""
        # Only what was given: releases differ in the fields that they know, and may run side by side.
        given = request.model_dump(mode="json", exclude={"image_key"}, exclude_defaults=True)
        canonical = json.dumps(given, sort_keys=True, ensure_ascii=False) + upload
        self._digest = hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def place(self) -> str:
        """What admission counts until the job is enqueued: all repetitions of one request have one place together."""
        return self.key.rpartition(":")[2]

    def find(self, connection: "Redis | Pipeline") -> str | None:
        """Return the id of the job that this Idempotency-Key created before; None when there is none.

        Raises IdempotencyConflict when the earlier request was a different one, or its record cannot be read.
        """
        raw = connection.get(self.key)
        if not isinstance(raw, bytes):
            return None
        found = or_none(FirstRequest, raw)
        if found is None:
            raise IdempotencyConflict(
                "This Idempotency-Key was used before, for a job that this server cannot find any more; use a new key."
            )
        if found.request != self._digest:
            raise IdempotencyConflict(
                "This Idempotency-Key was used for a different request; use a new key for a new request."
            )
        return found.job_id

    def write(self, pipeline: Pipeline, job_id: str) -> None:
        """Add the storing of the record to the transaction that enqueues the job."""
        value = FirstRequest(job_id=job_id, request=self._digest)
        pipeline.set(self.key, value.model_dump_json(), ex=keys.IDEMPOTENCY_SECONDS)


def enqueue(queue: Queue, message: JobMessage, high: bool = False, record: JobRecord | None = None) -> Enqueued:
    """Enqueue a job, at the front of the queue with `high`; or find the job that `record` names.

    The job's own stream is watched: when the answer of a transaction was lost, the next attempt finds that it
    succeeded. Raises QueueUnavailable after ENQUEUE_ATTEMPTS, what the record raises, or redis-py's errors.
    """
    stream = keys.events(message.job_id)
    position = 0 if high else int(queue.connection.llen(queue.key))
    for _ in range(ENQUEUE_ATTEMPTS):
        with queue.connection.pipeline(transaction=True) as pipeline:
            untyped: Any = pipeline
            untyped.watch(stream, *([record.key] if record else []))
            if record and (earlier := record.find(pipeline)):
                return Enqueued(earlier, created=earlier == message.job_id)
            if pipeline.exists(stream):
                return Enqueued(message.job_id, created=True)
            pipeline.multi()
            queue.enqueue_job(_rq_job(queue, message), pipeline=pipeline, at_front=high)
            queued = _first_event(message, position).model_dump_json(exclude_none=True)
            seconds = (message.deadline - message.submitted_at).total_seconds()
            # The job of an original takes no place among those of its owner, who may not have asked for it.
            owner = None if message.original_key else message.owner
            fields = (message.model, owner or "", message.webhook_url or "")
            call(pipeline, "begin", message.job_id, secrets.token_hex(8), queued, seconds, *fields)
            if record:
                record.write(pipeline, message.job_id)
            with suppress(WatchError):
                pipeline.execute()
                return Enqueued(message.job_id, created=True)
    raise QueueUnavailable("The job queue is too busy; nothing was accepted. Try again in a few seconds.")


def _rq_job(queue: Queue, message: JobMessage) -> Job:
    return queue.create_job(
        keys.JOB_FUNCTION,
        # Fields with default values are left out, because older workers refuse fields that they do not know.
        args=(message.model_dump(mode="json", exclude_defaults=True, exclude=set(IGNORABLE)),),
        kwargs=message.model_dump(mode="json", exclude_defaults=True, include=set(IGNORABLE)),
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
