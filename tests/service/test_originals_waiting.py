"""The original of a result while no worker makes it: the tests end the jobs themselves."""

import base64
import secrets
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import requests
from redis import Redis

from tests.support.events import RESULT
from tests.support.servers import function
from upres.core import api_keys, deadletters, events, keys
from upres.core.api import JobRequest
from upres.core.queue import open_queue, read_message
from upres.core.schema import Cancelled, Failed, Queued, Succeeded
from upres.embedded.stack import Local
from upres.function import originals
from upres.function.services import Services
from upres.function.submit import submit

pytestmark = pytest.mark.without_worker
AT_ONCE = {"Prefer": "wait=1"}


def done(redis: Redis, submitted: Any, owner: str = keys.NO_OWNER) -> dict[str, Any]:
    """End a submitted job with a lazy result. Returns what the function answered to its submission."""
    job_id = submitted["job_id"]
    [record] = [open_queue(redis).fetch_job(job_id)]
    assert record
    place = f"s3://upres/results/{owner}/{job_id}/1"
    changed = {
        "sr_image_uri": f"{place}/sr.png",
        "original_image_uri": f"{place}/original.png",
        "original_image_url": record.kwargs["original_url"],
        "original": "lazy",
    }
    events.append(redis, Succeeded(job_id=job_id, result=RESULT.model_copy(update=changed)))
    return {**submitted, "original_url": record.kwargs["original_url"]}


def making(redis: Redis) -> str:
    """The id of the job that makes an original: it is the next one of the queue."""
    job = open_queue(redis).jobs[-1]
    assert job.args[0]["original_key"].endswith("/original.png")
    return str(job.id)


@pytest.fixture
def job(local: Local, redis: Redis) -> dict[str, Any]:
    image = {"image_url": "https://example.org/a.png"}
    return done(redis, requests.post(f"{local.url}/v1/jobs", json=image, timeout=20).json())


def test_a_client_is_told_to_ask_again_while_nobody_makes_it(local: Local, redis: Redis, job: dict[str, Any]) -> None:
    for _ in range(2):
        answer = requests.get(job["original_url"], headers=AT_ONCE, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (503, "original_not_ready")
        assert answer.json()["retryable"]
        assert int(answer.headers["Retry-After"]) > 0
    begun = making(redis)
    assert [one.id for one in open_queue(redis).jobs].count(begun) == 1
    first = events.read(redis, begun)[0][1]
    assert isinstance(first, Queued)
    assert (first.model, first.owner) == ("bicubic", None)
    events.append(redis, Succeeded(job_id=begun, result=RESULT))
    answer = requests.get(job["original_url"], headers=AT_ONCE, timeout=20, allow_redirects=False)
    assert answer.status_code == 302
    assert "/original.png?" in answer.headers["Location"]


def test_a_job_that_failed_for_a_passing_reason_is_replaced(redis: Redis, job: dict[str, Any]) -> None:
    seen = []
    for _ in range(2):
        assert requests.get(job["original_url"], headers=AT_ONCE, timeout=20).status_code == 503
        seen.append(making(redis))
        events.append(redis, Failed(job_id=seen[-1], code="store_unavailable", message="m", retryable=True))
    assert len(set(seen)) == 2


@pytest.mark.parametrize(("code", "retryable"), [("upload_not_found", False), ("worker_lost", True)])
def test_a_job_that_failed_for_good_is_said(redis: Redis, job: dict[str, Any], code: str, retryable: bool) -> None:
    assert requests.get(job["original_url"], headers=AT_ONCE, timeout=20).status_code == 503
    events.append(redis, Failed(job_id=making(redis), code=code, message="It is gone.", retryable=retryable))
    answer = requests.get(job["original_url"], headers=AT_ONCE, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (410, "no_result")
    assert answer.json()["detail"].endswith("could not be made: It is gone.")


def test_a_replayed_job_makes_the_original_for_those_who_asked_before(
    local: Local, redis: Redis, job: dict[str, Any]
) -> None:
    assert requests.get(job["original_url"], headers=AT_ONCE, timeout=20).status_code == 503
    begun = making(redis)
    record = cast("dict[bytes, bytes]", redis.hgetall(keys.record(begun)))
    image = read_message(begun, record).original_key or ""
    events.append(redis, Failed(job_id=begun, code="worker_lost", message="m", retryable=True), dead=True)
    assert requests.get(job["original_url"], headers=AT_ONCE, timeout=20).status_code == 410
    assert deadletters.replay(redis, begun) != begun
    local.store.put(image, b"made")
    assert requests.get(job["original_url"], headers=AT_ONCE, timeout=20).content == b"made"


def test_an_owner_has_few_at_once_and_they_take_no_places_of_its_jobs(local: Local, redis: Redis) -> None:
    redis.delete(keys.originals(None))
    image = {"image_url": "https://example.org/a.png"}
    jobs = [
        done(redis, requests.post(f"{local.url}/v1/jobs", json=image, timeout=20).json())
        for _ in range(originals.AT_ONCE + 1)
    ]
    before = redis.llen(keys.WAITING)
    for one in jobs:  # HEAD begins the job as GET does, but does not wait for it
        answer = requests.head(one["original_url"], timeout=20)
        assert answer.status_code == 503
    assert redis.llen(keys.WAITING) == before + originals.AT_ONCE
    answer = requests.get(jobs[-1]["original_url"], headers=AT_ONCE, timeout=20)
    assert "are being made" in answer.json()["detail"]
    [other] = cast("list[bytes]", redis.zrange(keys.originals(None), 0, 0))
    events.append(redis, Cancelled(job_id=other.decode()))
    requests.head(jobs[-1]["original_url"], timeout=20)
    assert redis.llen(keys.WAITING) == before + originals.AT_ONCE


def test_a_host_that_is_too_long_for_an_address_gets_an_eager_original(local: Local, redis: Redis) -> None:
    """Else its message would be longer than a worker reads, and a dead letter."""
    services, request = Services(local.settings), JobRequest.model_validate({"image_url": "https://example.org/a.png"})
    services.store = local.store
    for host, lazy in (("a" * 9000, False), ("a" * 100, True)):
        accepted = submit(services, request, f"http://{host}")
        record = cast("dict[bytes, bytes]", redis.hgetall(keys.record(accepted.job_id)))
        assert (read_message(accepted.job_id, record).original_url is not None) == lazy


@pytest.fixture(scope="module")
def guarded(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from function(local, tmp_path_factory.mktemp("guarded"), UPRES_ACCESS="keys")


def test_the_address_of_an_original_shows_nothing_else_of_the_job(guarded: str, redis: Redis) -> None:
    made, text = api_keys.create(redis, "somebody")
    image = {"image_url": "https://example.org/a.png"}
    headers = {"Authorization": f"Bearer {text}"}
    submitted = requests.post(f"{guarded}/v1/jobs", json=image, headers=headers, timeout=20).json()
    job = done(redis, submitted, made.key_id)
    address, token = job["original_url"].split("?token=")
    ends = int.from_bytes(base64.urlsafe_b64decode(token[:8])[:6])
    assert ends - time.time() > keys.DEADLINE_SECONDS + keys.EVENTS_SECONDS - 60, "as long as the job can be read"
    assert redis.zcard(f"upres:key:{made.key_id}:jobs") == 0
    assert address == f"{job['status_url']}/original"
    assert requests.get(job["original_url"], headers=AT_ONCE, timeout=20).status_code == 503
    for what in ("", "/events", "/preview", "/result"):
        answer = requests.get(f"{job['status_url']}{what}", params={"token": token}, timeout=20)
        assert answer.status_code == 401, what
    other = f"{guarded}/v1/jobs/{secrets.token_hex(16)}/original"
    for url in (address, f"{address}?token={token[:-2]}AA", f"{other}?token={token}"):
        assert requests.get(url, headers=AT_ONCE, timeout=20).status_code == 401, url
    assert redis.zcard(f"upres:key:{made.key_id}:jobs") == 0, "the job of an original takes no place"
    whole = job["events_url"].split("?token=")[1]
    assert requests.get(f"{address}?token={whole}", headers=AT_ONCE, timeout=20).status_code == 503
    redis.hdel(keys.API_KEYS, made.key_id)
    assert requests.get(job["original_url"], headers=AT_ONCE, timeout=20).status_code == 401
