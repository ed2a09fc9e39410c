"""Tests of how errors of Redis are sorted and retried, and of the check of its address."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers.base import BaseParser
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from upres.core.errors import SettingsError
from upres.core.redis_retry import AsyncRetry, RefusedForNow, Retry
from upres.core.settings import Settings

FOR_NOW = (
    "READONLY You can't write against a read only replica.",
    "ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "ERR Error running script (call to f_0): @user_script:1: -OOM command not allowed when used memory > 'maxmemory'.",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "BUSY Redis is busy running a script.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
)
FOR_GOOD = (
    "NOAUTH Authentication required.",
    "NOPERM this user has no permissions to run the 'set' command",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "NOSCRIPT No matching script. Please use EVAL.",
    "ERR unknown command 'FOO'",
    "ERR the key is OOM-like",
    "EXECABORT Transaction discarded because of previous errors.",
)


def parsed(answer: str) -> Exception:
    """The exception that redis-py makes of an answer."""
    parse: Any = BaseParser.parse_error
    return cast(Exception, parse(answer))


@pytest.mark.parametrize("answer", FOR_NOW)
def test_what_redis_refuses_for_now_is_retried_on_a_new_connection(answer: str) -> None:
    asked: list[int] = []
    closed: list[Exception] = []

    def ask() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise parsed(answer)
        return "done"

    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    assert retry.call_with_retry(ask, closed.append) == "done"
    assert [type(error) for error in closed] == [RefusedForNow]


@pytest.mark.parametrize("answer", FOR_GOOD)
def test_what_redis_refuses_for_good_is_raised_at_once(answer: str) -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise parsed(answer)

    with pytest.raises((ResponseError, AuthenticationError)) as caught:
        Retry(NoBackoff(), 5).call_with_retry(ask, lambda error: None)
    assert (len(asked), isinstance(caught.value, RefusedForNow)) == (1, False)


def test_asyncio_connections_retry_in_the_same_way() -> None:
    asked: list[int] = []

    async def ask() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise parsed(FOR_NOW[0])
        return "done"

    async def close(error: Exception) -> None:
        assert isinstance(error, RefusedForNow)

    assert asyncio.run(AsyncRetry(NoBackoff(), 1).call_with_retry(ask, close)) == "done"


WRONG = {
    "redis://:pa/s3cret@host:6379/0": "percent-encoded",
    "redis://:pa#s3cret@host:6379/0": "percent-encoded",
    "redis://:pa?s3cret@host:6379/0": "percent-encoded",
    "redis://:pa[s3cret@host:6379/0": "percent-encoded",
    "redis://host:6379/0?ssl=true": "rediss://",
    "redis://host:99999/0": "1 to 65535",
    "redis://host:abc/0": "1 to 65535",
    "redis://:s3cret@host:6379/upres": "number",
    "redis://host:6379/0?db=x": "number",
    "redis://host:6379/0?socket_timeout=5": "not known",
    "http://host": "redis://",
    "host:6379": "redis://",
}
RIGHT = (
    "redis://host",
    "redis://user:p%2Fa%23s%3Fs@host:6379/3",
    "rediss://[::1]:6380/0?ssl_ca_certs=/ca.pem",
    "unix:///run/redis.sock?db=2",
    "unix://:secret@/run/redis.sock",
    "  redis://host:6379/0\n",
)


@pytest.mark.parametrize("address", WRONG)
def test_a_wrong_address_of_redis_is_one_sentence_without_the_password(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"UPRES_REDIS_URL": address})
    text = str(caught.value)
    assert text.startswith("UPRES_REDIS_URL: ")
    assert WRONG[address] in text
    assert "s3cret" not in text
    assert "\n" not in text


@pytest.mark.parametrize("address", RIGHT)
def test_a_right_address_of_redis_is_accepted(address: str) -> None:
    assert Settings.from_environment({"UPRES_REDIS_URL": address}).redis_url == address.strip()


@given(st.text(alphabet="redis:/@#?[]%0189. abé\r\n", max_size=30))
def test_any_address_of_redis_is_accepted_or_refused_with_a_settings_error(rest: str) -> None:
    with suppress(SettingsError):
        Settings.from_environment({"UPRES_REDIS_URL": "redis://" + rest})
