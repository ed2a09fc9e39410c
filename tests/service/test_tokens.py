"""A token of a job dies with the API key that submitted the job, and with the secret that signed it: at once."""

import base64
import hmac
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from tests.support.events import started
from tests.support.servers import function, post_job
from tests.support.streams import frames
from upres.core import api_keys, events, keys
from upres.embedded.stack import Local
from upres.function.access import make_token

READS = ("", "/events", "/preview", "/result", "/original")
SOON = 10
"""Seconds within which an open stream must end: less than until its next comment. It takes about one."""
pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module")
def guarded(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from function(local, tmp_path_factory.mktemp("guarded"), UPRES_ACCESS="keys")


@pytest.fixture
def key(redis: Redis) -> Iterator[tuple[str, str]]:
    """The id and the text of a new API key."""
    made, text = api_keys.create(redis, "somebody")
    yield made.key_id, text
    redis.hdel(keys.API_KEYS, made.key_id)


def accepted(url: str, text: str) -> tuple[str, str]:
    """Submit a job: its address and its token."""
    job: dict[str, Any] = post_job(url, text).json()
    return job["status_url"], job["events_url"].partition("?token=")[2]


def statuses(job: str, token: str) -> set[int]:
    """The statuses of all that a token allows to read; event streams are not read to their end."""
    found = set()
    for what in READS:
        with requests.get(f"{job}{what}", params={"token": token}, stream=True, timeout=20) as answer:
            found.add(answer.status_code)
    return found


def upres_keys(local: Local, *arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "upres"), "keys", *arguments]
    subprocess.run(command, env={**os.environ, **local.environment}, check=True, capture_output=True, timeout=30)


def test_a_token_dies_with_its_key(guarded: str, redis: Redis, key: tuple[str, str]) -> None:
    job, token = accepted(guarded, key[1])
    assert statuses(job, token) == {200, 409}  # 409: the job has no images yet
    api_keys.revoke(redis, key[0])
    assert statuses(job, token) == {401}


def test_all_tokens_die_when_the_secret_is_rotated(local: Local, guarded: str, key: tuple[str, str]) -> None:
    job, token = accepted(guarded, key[1])
    assert statuses(job, token) == {200, 409}
    upres_keys(local, "rotate-secret")
    assert statuses(job, token) == {401}
    assert requests.get(job, headers={"Authorization": f"Bearer {key[1]}"}, timeout=20).ok
    assert statuses(*accepted(guarded, key[1])) == {200, 409}


def test_open_streams_end_soon_after_their_key_or_their_secret(
    guarded: str, redis: Redis, key: tuple[str, str]
) -> None:
    job, token = accepted(guarded, key[1])
    headers = {"Authorization": f"Bearer {key[1]}"}
    with (
        requests.get(f"{job}/events", params={"token": token}, stream=True, timeout=SOON) as with_token,
        requests.get(f"{job}/events", headers=headers, stream=True, timeout=SOON) as with_key,
    ):
        by_token, by_key = frames(with_token), frames(with_key)
        assert "queued" in next(by_token).data
        api_keys.replace_token_secret(redis)
        assert list(by_token) == []  # it ends
        assert "queued" in next(by_key).data
        events.append(redis, started(job.rpartition("/")[2]))
        assert "started" in next(by_key).data  # it goes on
        api_keys.revoke(redis, key[0])
        assert list(by_key) == []


def test_a_token_of_another_key_reads_nothing_of_the_job(guarded: str, redis: Redis, key: tuple[str, str]) -> None:
    """Also if it is signed with the right secret, as no function makes it."""
    other, _ = api_keys.create(redis, "other")
    job, _ = accepted(guarded, key[1])
    secret = redis.get(keys.JOB_SIGNING_KEY)
    assert isinstance(secret, bytes)
    assert statuses(job, make_token(secret, job.rpartition("/")[2], other.key_id)) == {404}
    redis.hdel(keys.API_KEYS, other.key_id)


def test_a_token_that_names_no_key_is_refused(guarded: str, redis: Redis, key: tuple[str, str]) -> None:
    """The tokens of releases before 0.1.0 had only an expiry time."""
    job, _ = accepted(guarded, key[1])
    secret, expires = redis.get(keys.JOB_SIGNING_KEY), int(time.time() + 3600).to_bytes(6)
    assert isinstance(secret, bytes)
    signature = hmac.digest(secret, job.rpartition("/")[2].encode() + expires, "sha256")
    assert statuses(job, base64.urlsafe_b64encode(expires + signature).decode().rstrip("=")) == {401}
