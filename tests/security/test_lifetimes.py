"""How long tokens and links are valid, and which ids are random."""

import base64
import re
import secrets
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from redis import Redis

from tests.support.servers import function, post_job
from upres.core import api_keys, keys, results
from upres.core.storage import Store
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker
DAY = 24 * 3600


@pytest.fixture(scope="module")
def guarded(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from function(local, tmp_path_factory.mktemp("guarded"), UPRES_ACCESS="keys")


@pytest.fixture
def text(redis: Redis) -> str:
    return api_keys.create(redis, "somebody")[1]


def seconds_of(link: str) -> int:
    """The lifetime of a presigned URL, as its signature states it."""
    return int(parse_qs(urlsplit(link).query)["X-Amz-Expires"][0])


def upload(url: str, text: str) -> dict[str, str]:
    answer = requests.post(
        f"{url}/v1/uploads", json={"bytes": 5}, headers={"Authorization": f"Bearer {text}"}, timeout=20
    )
    made: dict[str, str] = answer.json()
    return made


def test_an_upload_link_is_valid_for_fifteen_minutes(guarded: str, text: str) -> None:
    assert seconds_of(upload(guarded, text)["upload_url"]) == 15 * 60


def test_a_link_to_a_result_is_valid_for_an_hour(store: Store) -> None:
    images = [make("0123abcd", "0" * 32, 1, "png") for make in (keys.result, keys.original)]
    links = [results.link(store, "0123abcd", image, "a.png") for image in images]
    assert [seconds_of(link) for link in links] == [3600] * 2


def test_a_token_is_valid_for_a_day(guarded: str, text: str) -> None:
    token = post_job(guarded, text).json()["events_url"].partition("?token=")[2]
    ends = int.from_bytes(base64.urlsafe_b64decode(token[:8])[:6])
    assert DAY - 60 < ends - time.time() <= DAY


def test_ids_of_jobs_and_uploads_have_128_random_bits(
    guarded: str, text: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [post_job(guarded, text).json()["job_id"] for _ in range(20)]
    ids += [upload(guarded, text)["image_key"].removeprefix("uploads/") for _ in range(20)]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    together = [int(one, 16) for one in ids]
    for bit in range(128):  # each bit is 0 in some and 1 in others; the probability of an error is 1e-9
        assert {one >> bit & 1 for one in together} == {0, 1}, bit


def test_the_results_of_each_attempt_have_keys_of_their_own() -> None:
    job_id = secrets.token_hex(16)
    made = [make("0123abcd", job_id, attempt, "png") for make in (keys.result, keys.original) for attempt in (1, 2, 3)]
    assert len(set(made)) == 6
    assert all(one.startswith(f"results/0123abcd/{job_id}/") for one in made)
