"""Redis and the RQ queue in it, set up the same way by whoever needs them."""

import zlib
from typing import TYPE_CHECKING

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.retry import Retry
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from upres.core import keys
from upres.core.errors import JobRefused, SettingsError
from upres.core.schema import JobMessage
from upres.core.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis as AsyncRedis

MESSAGE_BYTES = 64 * 1024
"""More than the longest message of ours has: a few addresses, each of a few thousand characters."""


def connect(settings: Settings) -> Redis:
    """A patient connection, for a worker: every command is repeated for about half a minute.

    So a job survives a restart of Redis, and a network that swallows what is sent.
    """
    return Redis.from_url(
        _url(settings),
        socket_connect_timeout=2,
        socket_timeout=5,
        retry=Retry(ExponentialWithJitterBackoff(cap=2, base=0.1), 20),
        retry_on_error=[ReadOnlyError],  # a primary that was replaced: the next connection finds the new one
    )


def connect_quickly(settings: Settings, seconds: float = 3) -> Redis:
    """An impatient connection, for answering people: no command is waited for longer than so many seconds."""
    # One retry repairs a connection that Redis closed while idle; more, or one after silence, would delay a 503.
    return Redis.from_url(
        _url(settings),
        socket_connect_timeout=1,
        socket_timeout=seconds,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


def connect_async(settings: Settings, max_connections: int, seconds: float | None = 5) -> "AsyncRedis":
    """For following events: so many connections at most, others wait; errors show at once, silence in seconds."""
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio import Redis as AsyncRedis
    from redis.asyncio.retry import Retry as AsyncRetry

    pool = BlockingConnectionPool.from_url(
        _url(settings),
        max_connections=max_connections,
        timeout=None,
        socket_connect_timeout=1,
        socket_timeout=seconds,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return AsyncRedis.from_pool(pool)


def open_queue(connection: Redis) -> Queue:
    """The one queue; JSON instead of RQ's default pickle, so that nothing in it can run code."""
    return Queue(keys.QUEUE, connection=connection, serializer=JSONSerializer)


def read_message(job_id: str, record: dict[bytes, bytes]) -> JobMessage:
    """The message in RQ's record of a job; nothing that is named there is imported or run.

    Raises JobRefused for anything but a job that upres put there under this id.
    """
    try:
        job = Job(job_id, connection=Redis(), serializer=JSONSerializer)
        job.restore({b"data": _unpacked(record[b"data"])})
        [message] = job.args
        read = JobMessage.model_validate(message)
    except Exception as error:  # whatever somebody else wrote there
        raise JobRefused(f"The record of job {job_id[:64]!r} cannot be read ({type(error).__name__}).") from error
    if job.func_name != keys.JOB_FUNCTION or read.job_id != job_id:
        raise JobRefused(f"Job {job_id[:64]!r} asks for {str(job.func_name)[:64]!r}, which is not allowed.")
    return read


def _unpacked(data: bytes) -> bytes:
    """What RQ packs with zlib (RFC 1950), and no bomb."""
    unpacked = zlib.decompressobj().decompress(data, MESSAGE_BYTES + 1)
    if len(unpacked) > MESSAGE_BYTES:
        raise ValueError(f"more than {MESSAGE_BYTES} bytes")
    return unpacked


def _url(settings: Settings) -> str:
    if not settings.redis_url.startswith(("redis://", "rediss://", "unix://")):
        raise SettingsError("UPRES_REDIS_URL: must start with redis://, rediss:// or unix://")
    return settings.redis_url
