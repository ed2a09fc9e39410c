"""Submit a request: validate it, admit it, store its image, and enqueue a job."""

import hashlib
import logging
import secrets
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from upres.core import api_keys, events, factors, keys, served_models, strength, target, tracing
from upres.core.api import Enlargement, JobAccepted, JobRequest
from upres.core.enqueue import Enqueued, IdempotencyRecord, enqueue
from upres.core.errors import FieldError, InvalidRequest, LimitReached, QueueUnavailable
from upres.core.factors import Factors
from upres.core.job_message import MAX_URL, JobMessage
from upres.core.logs import JobLog
from upres.core.options import ResultOptions
from upres.core.schema import Status, now
from upres.core.served_models import ModelRef
from upres.function.access import ANYBODY, TOKEN_SECONDS, Caller, make_token, original_of
from upres.function.base64_file import Base64File
from upres.function.services import Services

log = logging.getLogger("upres.function")

MAX_KEY_LENGTH = 255
"""Maximum length of an Idempotency-Key in characters."""


class _Address(NamedTuple):
    """What the addresses of a job are made from; it is read before there is a job."""

    base_url: str
    caller: Caller
    token_secret: bytes


def submit(
    services: Services,
    request: JobRequest,
    base_url: str,
    idempotency_key: str | None = None,
    caller: Caller = ANYBODY,
    image: Base64File | None = None,
) -> JobAccepted:
    """Submit a request, or find the job that the same caller's Idempotency-Key created before.

    `image` is the file that was sent as image_base64, if it was decoded while it came.

    Raises UnknownModel, ModelError, InvalidRequest, TooManyBytes, IdempotencyConflict, LimitReached, QueueUnavailable,
    StoreUnavailable, or redis-py's errors. Enqueueing comes last: after an error of an earlier step no job exists, and
    after it nothing raises, so that the answer has the job's id.
    """
    _check_key(idempotency_key)
    address = _Address(base_url, caller, services.token_secret if caller.key else b"")
    file = None
    if request.image_base64 is not None:
        file = image or Base64File.of(request.image_base64, services.settings.max_input_bytes)
    record = _record(idempotency_key, request, file, caller) if idempotency_key else None
    if record and (earlier := record.find(services.redis)):
        return _accepted(services, Enqueued(earlier, created=False), address)
    job_id = secrets.token_hex(16)
    ref, first = _validate(services, request, job_id)
    data = file.file() if file else None
    if earlier := _admit(services, caller, record, job_id, len(data or b"")):
        return _accepted(services, Enqueued(earlier, created=False), address)
    image_key = request.image_key if data is None else _store(services, data)
    message = _message(services, request, caller, job_id, ref, first, image_key)
    if request.original == "lazy":
        lasting = int(request.deadline_seconds) + keys.EVENTS_SECONDS
        message = message.model_copy(update={"original_url": _original_url(job_id, address, lasting)})
    enqueued = _enqueue(services, message, request.priority == "high", record)
    if caller.key and record:
        with suppress(RedisError):  # the place is given up by itself after 30 seconds
            api_keys.leave(services.redis, caller.key, record.place)  # the job has a place of its own now
    return _accepted(services, enqueued, address)


def _admit(services: Services, caller: Caller, record: IdempotencyRecord | None, job_id: str, size: int) -> str | None:
    """Count a submission, with an image of `size` bytes, for its API key. Raises what `api_keys.admit` raises.

    Returns the id of the job that a repetition of the request made a moment ago, when that one has reached the limit.
    """
    if caller.key:
        try:
            api_keys.admit(services.redis, caller.key, record.place if record else job_id, size)
        except LimitReached:
            if record and (earlier := record.find(services.redis)):
                return earlier
            raise
    return None


def check_limits(services: Services, caller: Caller, idempotency_key: str | None, size: int) -> None:
    """Check before a body is read whether its submission, with an image of at least `size` bytes, can be admitted.

    A repeated request finds its job also when a limit is reached. Raises what `api_keys.check_admission` raises.
    """
    record_key = keys.idempotency(f"{caller.owner or ''}:{idempotency_key}") if idempotency_key else ""
    if caller.key and not (record_key and services.redis.exists(record_key)):
        api_keys.check_admission(services.redis, caller.key, record_key.rpartition(":")[2], size)


def _record(key: str, request: JobRequest, file: Base64File | None, caller: Caller) -> IdempotencyRecord:
    """Make the record of an Idempotency-Key. For an image in the request its SHA-256 is part of what was requested.

    Raises InvalidRequest or TooManyBytes for an image that cannot be decoded.
    """
    if file:
        digest = hashlib.sha256(file.file()).hexdigest()
        request = request.model_copy(update={"image_base64": f"sha256:{digest}"})
    return IdempotencyRecord(key, request, caller.owner)


def _validate(services: Services, request: JobRequest, job_id: str) -> tuple[ModelRef, ModelRef | None]:
    """Validate a request. Return the versions of model and first_model.

    Raises UnknownModel, ModelError, InvalidRequest, StoreUnavailable or redis-py's errors.
    """
    model = request.model or services.settings.model
    ref = served_models.resolve(services.redis, services.store, model, request.model_version, job_id)
    _check_webhook(services, request.webhook_url)
    first = served_models.resolve_first(services.redis, services.store, request.first_model, job_id)
    check_models(request, model, ref, first)
    return ref, first


def _store(services: Services, image: bytes) -> str:
    """Store an image and return its key. The key is random and not the job's id, because the id is not secret."""
    image_key = keys.new_upload()
    services.store.put(image_key, image)
    return image_key


def _message(
    services: Services,
    request: JobRequest,
    caller: Caller,
    job_id: str,
    ref: ModelRef,
    first: ModelRef | None,
    image_key: str | None,
) -> JobMessage:
    """Make the message for the worker: the request, with the image's address or key in place of the image."""
    submitted_at, model = now(), request.model or services.settings.model
    return JobMessage(
        job_id=job_id,
        image_url=request.image_url,
        image_key=image_key,
        image_name=request.image_name,
        model=model,
        model_version=ref.version,
        model_digest=ref.digest,
        first_model_version=first.version if first else None,
        first_model_digest=first.digest if first else None,
        submitted_at=submitted_at,
        deadline=submitted_at + timedelta(seconds=request.deadline_seconds),
        owner=caller.owner,
        webhook_url=request.webhook_url,
        preview=request.preview,
        **(request.model_dump(include=set(ResultOptions.model_fields)) | {"strength": _strength(request, model, ref)}),
    )


def _enqueue(services: Services, message: JobMessage, high: bool, record: IdempotencyRecord | None) -> Enqueued:
    """Enqueue the job within a span, whose context the message carries to the worker.

    Raises QueueUnavailable, IdempotencyConflict or redis-py's errors.
    """
    with tracing.span(
        f"send {keys.QUEUE}",
        "producer",
        messaging__system="rq",
        messaging__destination__name=keys.QUEUE,
        messaging__operation__type="send",
        messaging__message__id=message.job_id,
    ):
        message = message.model_copy(update={"traceparent": tracing.traceparent()})
        try:
            enqueued = enqueue(services.queue, message, high=high, record=record)
        except RedisTimeoutError:
            raise QueueUnavailable(
                f"The job queue did not answer in time, so it is not known whether job {message.job_id} was accepted. "
                "Look at it in a few seconds, or send the request again with the same Idempotency-Key."
            ) from None
    if enqueued.created:
        fields = {"event": "queued", "model": message.model, "upscale_factor": message.upscale_factor}
        JobLog(log, message.job_id).info("queued", extra=fields)
    return enqueued


def _accepted(services: Services, job: Enqueued, address: _Address) -> JobAccepted:
    """Make the answer with the job's addresses; with an empty base URL they are paths."""
    status_url = f"{address.base_url.rstrip('/')}/v1/jobs/{job.job_id}"
    events_url = f"{status_url}/events{_token(address, job.job_id)}"
    return JobAccepted(
        job_id=job.job_id,
        status="queued" if job.created else _status(services.redis, job.job_id),
        channel=keys.channel(job.job_id),
        events_url=events_url,
        status_url=status_url,
    )


def _original_url(job_id: str, address: _Address, seconds: int) -> str | None:
    """Make the address at which the original is made when it is asked for; None if it would be no URL, or too long."""
    token = _token(address, original_of(job_id), seconds)
    url = f"{address.base_url.rstrip('/')}/v1/jobs/{job_id}/original{token}"
    return url if address.base_url and len(url) <= MAX_URL else None


def _token(address: _Address, what: str, seconds: int = TOKEN_SECONDS) -> str:
    """Make the query of a URL that allows reading a job, or a part of one; empty where no keys are needed."""
    key = address.caller.key
    return f"?token={make_token(address.token_secret, what, key.key_id, seconds)}" if key else ""


def check_models(wanted: Enlargement, model: str, ref: ModelRef, first: ModelRef | None) -> None:
    """Raise InvalidRequest when a model version has not the factor, or no strength, that the request needs of it."""
    _strength(wanted, model, ref)
    before = Factors(wanted.first_model, first.version, first.factors) if wanted.first_model and first else None
    factors.check(wanted.upscale_factor, Factors(model, ref.version, ref.factors), before)


def _strength(wanted: Enlargement, model: str, ref: ModelRef) -> float | None:
    """Return the strength for the job's message. Raises InvalidRequest."""
    return strength.pinned(wanted.strength, model, ref.version, ref.strength)


def _check_webhook(services: Services, url: str | None) -> None:
    """Raise InvalidRequest when the settings do not allow this host; workers check the addresses of the host."""
    host = target.parse(url).host if url else ""
    if host and not services.settings.may_reach(host):
        detail = f"webhook_url: this server is configured to send no webhooks to {host}; use another host."
        raise _invalid("webhook_url", "invalid_webhook_url", detail, url or "")


def _status(connection: Redis, job_id: str) -> Status:
    """The state of a job; queued when it cannot be read, because the job is accepted in any case."""
    with suppress(RedisError):
        entries = events.read(connection, job_id)
        return events.fold(event for _, event in entries).status if entries else "queued"
    return "queued"


def _check_key(key: str | None) -> None:
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        detail = f"The idempotency key must be 1 to {MAX_KEY_LENGTH} printable characters."
        raise _invalid("Idempotency-Key", "invalid_idempotency_key", detail, str(key))


def _invalid(field: str, code: str, detail: str, given: str) -> InvalidRequest:
    return InvalidRequest([FieldError(field=field, code=code, given=given[:80], detail=detail)])
