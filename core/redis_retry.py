"""Sorts what Redis answers, and retries what it refuses only for now: for every connection of upres.

Redis is *gone* when it does not answer, or closes the connection: connect again. It *refuses for now* what another
node, or the same one a little later, accepts: a former primary that is a replica now (READONLY), a full memory (OOM), a
full disk (MISCONF), replicas that are missing (NOREPLICAS), a restart (LOADING, MASTERDOWN), a long script (BUSY). A
node that becomes a replica tells those who wait for a job (UNBLOCKED).
Everything else it refuses *for good* (NOAUTH, NOPERM, WRONGTYPE, …), and a retry would not help.
"""

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio.retry import Retry as _AsyncRetry
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry as _Retry

T = TypeVar("T")

_FOR_NOW = re.compile(
    r"(?:^|-|because of: )"
    r"(?:READONLY|OOM|MISCONF|NOREPLICAS|LOADING|MASTERDOWN|BUSY|TRYAGAIN|CLUSTERDOWN|UNBLOCKED)\b"
)
"""At the beginning of an error, or inside of the error of a script (Redis 6.2 quotes it there, after a hyphen) or of a
transaction that was given up."""


class RefusedForNow(RedisConnectionError):
    """Redis refuses the command for now. As after a lost connection, the next attempt opens a new one.

    A virtual address or a DNS name may lead to another node by then.
    """


def refuses_for_now(error: ResponseError) -> bool:
    """Whether another node, or the same one later, may accept the command."""
    code = getattr(error, "status_code", None)  # redis-py removes the codes that it knows from the text
    return bool(_FOR_NOW.search(f"{code} {error}" if code else str(error)))


def _may_pass(error: Exception) -> bool:
    """Whether a new attempt may succeed; redis-py counts a wrong password as a lost connection."""
    return not isinstance(error, AuthenticationError)


class Retry(_Retry):
    """redis-py's Retry, which also retries what Redis refuses for now."""

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., object],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """See redis-py. Raises RefusedForNow when the last attempt was refused, too."""

        def attempt() -> T:
            try:
                return do()
            except ResponseError as error:
                if refuses_for_now(error):
                    raise RefusedForNow(*error.args) from error
                raise

        return super().call_with_retry(attempt, fail, is_retryable or _may_pass, with_failure_count)


class AsyncRetry(_AsyncRetry):
    """The same for redis-py's asyncio connections."""

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[T]],
        fail: Callable[..., object],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """See redis-py. Raises RefusedForNow when the last attempt was refused, too."""

        async def attempt() -> T:
            try:
                return await do()
            except ResponseError as error:
                if refuses_for_now(error):
                    raise RefusedForNow(*error.args) from error
                raise

        return await super().call_with_retry(attempt, fail, is_retryable or _may_pass, with_failure_count)
