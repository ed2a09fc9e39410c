"""Request → accepted: store the upload if there is one, then enqueue, in one Redis transaction."""

import base64
import binascii
import hashlib
import json
import secrets
from contextlib import suppress

from redis import Redis, WatchError
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job

from core import events, keys
from core.errors import FieldError, IdempotencyConflict, InvalidRequest, QueueUnavailable, TooManyBytes, UnknownModel
from core.schema import JobAccepted, JobMessage, JobRequest, Queued, Status, now
from function.services import Services

MAX_KEY = 255
"""Longest Idempotency-Key in characters."""
ENQUEUE_ATTEMPTS = 5
"""A transaction is tried again when a key it watches changed, or its connection broke."""


def submit(services: Services, request: JobRequest, base_url: str, idempotency_key: str | None = None) -> JobAccepted:
    """Accept a job, or find the one that the same idempotency key made before.

    Raises UnknownModel, InvalidRequest, TooManyBytes, IdempotencyConflict, QueueUnavailable,
    StoreUnavailable, or redis-py's errors; whatever it raises, nothing was enqueued.
    """
    _check_key(idempotency_key)
    record = Record(idempotency_key, request) if idempotency_key else None
    job_id = record.find(services.redis) if record else None
    if job_id is None:
        message = _message(services, request)
        job_id = _enqueue(services, message, high=request.priority == "high", record=record)
        if job_id == message.job_id:
            return accepted(job_id, base_url)
    return accepted(job_id, base_url, _status(services.redis, job_id))


def accepted(job_id: str, base_url: str, status: Status = "queued") -> JobAccepted:
    """Where to follow a job; with an empty base URL the addresses are paths."""
    job = f"{base_url.rstrip('/')}/v1/jobs/{job_id}"
    return JobAccepted(
        job_id=job_id, status=status, channel=keys.channel(job_id), events_url=f"{job}/events", status_url=job
    )


class Record:
    """What an Idempotency-Key stands for: a job id, and the digest of the request that made it."""

    def __init__(self, key: str, request: JobRequest) -> None:
        self.key = keys.idempotency(key)
        self._digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()

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


def _message(services: Services, request: JobRequest) -> JobMessage:
    """The job for the queue; an image that came along goes into the store, only its key into the job."""
    model = request.model or services.settings.model
    if model != services.settings.model:
        raise UnknownModel(f"There is no model {model!r}; available: {services.settings.model}.")
    job_id = secrets.token_hex(16)
    image_key = request.image_key
    if request.image_base64 is not None:
        data = _decode(request.image_base64, services.settings.max_input_bytes)
        image_key = keys.upload(job_id)
        services.store.put(image_key, data)
    return JobMessage(
        job_id=job_id,
        image_url=request.image_url,
        image_key=image_key,
        image_name=request.image_name,
        upscale_factor=request.upscale_factor,
        model=model,
        output_format=request.output_format,
        submitted_at=now(),
    )


def _enqueue(services: Services, message: JobMessage, high: bool, record: Record | None) -> str:
    """Job, first event and idempotency record: all of them or none. The id of the job that is enqueued now.

    The job's own stream is watched, so that a transaction whose answer was lost is not repeated: it
    is found to have gone through. QueueUnavailable when it never does.
    """
    stream = keys.events(message.job_id)
    position = 0 if high else int(services.redis.llen(services.queue.key))
    for _ in range(ENQUEUE_ATTEMPTS):
        with services.redis.pipeline(transaction=True) as pipeline:
            pipeline.watch(stream, *([record.key] if record else []))  # type: ignore[no-untyped-call]
            if record and (earlier := record.find(pipeline)):
                return earlier
            if pipeline.exists(stream):
                return message.job_id
            pipeline.multi()
            services.queue.enqueue_job(_rq_job(services.queue, message), pipeline=pipeline, at_front=high)
            events.append(pipeline, _first_event(message, position))
            if record:
                record.write(pipeline, message.job_id)
            with suppress(WatchError):
                pipeline.execute()
                return message.job_id
    raise QueueUnavailable("The job queue is too busy; nothing was accepted. Try again in a few seconds.")


def _rq_job(queue: Queue, message: JobMessage) -> Job:
    return queue.create_job(
        keys.JOB_FUNCTION,
        args=(message.model_dump(mode="json", exclude_none=True),),
        job_id=message.job_id,
        description=message.job_id,
        timeout=keys.JOB_SECONDS,
        ttl=keys.EVENTS_SECONDS,
        result_ttl=0,
        failure_ttl=keys.RQ_TRACE_SECONDS,
        # Not the job's own failures, which it tells itself: those of the worker under it.
        retry=Retry(max=keys.ATTEMPTS - 1),
    )


def _first_event(message: JobMessage, position: int) -> Queued:
    return Queued(
        job_id=message.job_id,
        upscale_factor=message.upscale_factor,
        model=message.model,
        output_format=message.output_format,
        position=position,
    )


def _status(connection: Redis, job_id: str) -> Status:
    entries = events.read(connection, job_id)
    return events.fold(event for _, event in entries).status if entries else "queued"


def _decode(text: str, max_bytes: int) -> bytes:
    """base64, optionally as a data: URL → bytes. Raises InvalidRequest or TooManyBytes."""
    payload = "".join((text.partition(",")[2] if text.startswith("data:") else text).split())
    if len(payload) // 4 * 3 > max_bytes + 2:
        raise TooManyBytes(f"The image file is larger than {max_bytes / 1e6:g} MB; send a smaller file.")
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("image_base64", "invalid_base64", f"image_base64 is not valid base64 ({error}).", text) from None
    if not data:
        raise _invalid("image_base64", "invalid_base64", "image_base64 is empty; send the image file.", text)
    return data


def _check_key(key: str | None) -> None:
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY and key.isprintable()):
        detail = f"The idempotency key must be 1 to {MAX_KEY} printable characters."
        raise _invalid("Idempotency-Key", "invalid_idempotency_key", detail, str(key))


def _invalid(field: str, code: str, detail: str, given: str) -> InvalidRequest:
    return InvalidRequest([FieldError(field=field, code=code, given=given[:80], detail=detail)])
