"""Connections to Redis, and the RQ queue in it: function, workers and console open them here in the same way."""

import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from upres.core import keys
from upres.core.errors import JobRefused, WorkerOutdated
from upres.core.foreign_text import printable
from upres.core.job_message import IGNORABLE, JobMessage
from upres.core.redis_retry import AsyncRetry, Retry
from upres.core.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis as AsyncRedis

MESSAGE_BYTES = 64 * 1024
"""Largest job message in bytes: more than any message of upres, whose URLs have at most 8192 characters."""


def connect(settings: Settings) -> Redis:
    """Connect for a worker: every command is retried for about 30 seconds.

    So a job survives a restart of Redis, a failover, and a network that loses packets.
    """
    return Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=2,
        socket_timeout=5,
        retry=Retry(ExponentialWithJitterBackoff(cap=2, base=0.1), 20),
    )


def connect_with_timeout(settings: Settings, seconds: float = 3) -> Redis:
    """Connect for answering requests: a command times out after `seconds`."""
    # One retry repairs a connection that Redis closed while it was idle, or that leads to a former primary. More
    # retries, or one after a timeout, would delay a 503.
    return Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=1,
        socket_timeout=seconds,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


def connect_async(settings: Settings, max_connections: int, seconds: float | None = 5) -> "AsyncRedis":
    """Open a pool of connections for event streams; a caller waits when all `max_connections` are in use.

    As in connect_with_timeout a lost connection is repaired once. A command times out after `seconds`; None: never.
    """
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio import Redis as AsyncRedis

    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=max_connections,
        timeout=None,
        socket_connect_timeout=1,
        socket_timeout=seconds,
        retry=AsyncRetry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return AsyncRedis.from_pool(pool)


def open_queue(connection: Redis) -> Queue:
    """Open the RQ queue of upres. Records are JSON instead of RQ's default pickle, which could run code."""
    return Queue(keys.QUEUE, connection=connection, serializer=JSONSerializer)


def read_message(job_id: str, record: dict[bytes, bytes]) -> JobMessage:
    """Read the job message in RQ's record of a job.

    Raises what `read_fields` raises, and JobRefused when a field is wrong; WorkerOutdated when only a newer release can
    have written its fields or words.
    """
    try:
        return JobMessage.model_validate(read_fields(job_id, record))
    except ValidationError as error:
        if unknown := _unknown(error):
            raise WorkerOutdated(
                f"The job asks for {unknown}, which the workers are too old to know; submit it again "
                "when they are updated, or without it."
            ) from error
        raise _unreadable(job_id, error) from error


def read_fields(job_id: str, record: dict[bytes, bytes]) -> dict[str, Any]:
    """Read the fields of the job message in RQ's record, whatever they are. Nothing that it names is imported or run.

    Raises JobRefused when the record cannot be read, has another id, or names another function.
    """
    try:
        job = Job(job_id, connection=_unused(), serializer=JSONSerializer)
        job.restore({b"data": _unpacked(record[b"data"])})
        [message] = job.args
        fields = dict(message) | {name: value for name, value in job.kwargs.items() if name in IGNORABLE}
    except Exception as error:  # another program may have written anything there
        raise _unreadable(job_id, error) from error
    if job.func_name != keys.JOB_FUNCTION or fields.get("job_id") != job_id:
        raise JobRefused(f"Job {job_id[:64]!r} asks for {str(job.func_name)[:64]!r}, which is not allowed.")
    return fields


@cache
def _unused() -> Redis:
    """Return the connection that RQ wants for a record, and does not use; to make it takes 0.3 ms."""
    return Redis()


def _unreadable(job_id: str, error: Exception) -> JobRefused:
    return JobRefused(f"The record of job {job_id[:64]!r} cannot be read ({type(error).__name__}).")


def _unknown(error: ValidationError) -> str:
    """Return the fields of a message that only a newer release can have written; empty unless these alone are wrong."""
    problems = error.errors(include_input=False, include_url=False)
    if any(one["type"] not in ("extra_forbidden", "literal_error") for one in problems):
        return ""
    return printable(", ".join(sorted({str(one["loc"][0]) for one in problems if one["loc"]}))[:200])


def _unpacked(data: bytes) -> bytes:
    """Unpack data that RQ packed with zlib (RFC 1950). Raises ValueError above MESSAGE_BYTES, against zip bombs."""
    unpacked = zlib.decompressobj().decompress(data, MESSAGE_BYTES + 1)
    if len(unpacked) > MESSAGE_BYTES:
        raise ValueError(f"more than {MESSAGE_BYTES} bytes")
    return unpacked
