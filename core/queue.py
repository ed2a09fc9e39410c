"""Redis and the RQ queue in it, set up the same way by whoever needs them."""

from typing import TYPE_CHECKING

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from core import keys
from core.errors import SettingsError
from core.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis as AsyncRedis


def connect(settings: Settings) -> Redis:
    """A patient connection, for a worker: every command is repeated for about half a minute.

    So a job survives a restart of Redis.
    """
    return Redis.from_url(_url(settings), retry=Retry(ExponentialWithJitterBackoff(cap=2, base=0.1), 20))


def connect_quickly(settings: Settings, seconds: float = 5) -> Redis:
    """An impatient connection, for answering people: no command is waited for longer than so many seconds."""
    # One retry repairs a connection that Redis closed while idle; more would delay a 503.
    return Redis.from_url(
        _url(settings),
        socket_connect_timeout=1,
        socket_timeout=seconds,
        retry=Retry(NoBackoff(), 1),
    )


def connect_async(settings: Settings, max_connections: int) -> "AsyncRedis":
    """For following events: so many connections at most, others wait; errors show at once."""
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio import Redis as AsyncRedis
    from redis.asyncio.retry import Retry as AsyncRetry

    pool = BlockingConnectionPool.from_url(
        _url(settings),
        max_connections=max_connections,
        timeout=None,
        socket_connect_timeout=1,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return AsyncRedis.from_pool(pool)


def open_queue(connection: Redis, job_class: type[Job] = Job) -> Queue:
    """The one queue; JSON instead of RQ's default pickle, so that nothing in it can run code."""
    return Queue(keys.QUEUE, connection=connection, serializer=JSONSerializer, job_class=job_class)


def _url(settings: Settings) -> str:
    if not settings.redis_url.startswith(("redis://", "rediss://", "unix://")):
        raise SettingsError("UPRES_REDIS_URL: must start with redis://, rediss:// or unix://")
    return settings.redis_url
