"""Limits of API keys hold: every request is counted before anything is done for it, and so are bytes and pixels."""

import base64
import secrets
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from redis import Redis

from tests.support.images import encoded
from tests.support.servers import Patched, patched_function, post_job
from tests.support.waiting import wait_until
from tests.support.workers import worker
from upres.client import Client
from upres.core import api_keys, keys
from upres.core.errors import RateLimited
from upres.embedded.stack import Local
from upres.function.link_pace import SHARE, LinkPace

pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module")
def running(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    """A function that requires an API key, and takes images of the usual 20 MB."""
    changed = {"UPRES_ACCESS": "keys", "UPRES_MAX_INPUT_MEGABYTES": "20"}
    with patched_function(local, tmp_path_factory.mktemp("limits"), {}, **changed) as patched:
        yield patched


def made(redis: Redis, **limits: Any) -> str:
    return api_keys.create(redis, "somebody", **limits)[1]


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def peak(process: psutil.Process) -> int:
    """The most memory that a process has used, in bytes (VmHWM, proc(5))."""
    with open(f"/proc/{process.pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    ("begin", "repeated", "end", "code"),
    [
        (b'{"image_url":[', b"[],", b"[]]}", "invalid_json"),
        (b'{"image_url":[', b"{},", b"{}]}", "invalid_json"),
        (b'{"image_url":{', b'"a":1,', b'"b":2}}', "invalid_json"),
        (b'{"a":', b"[", b"", "invalid_json"),
        (b"", b'{"a":', b"", "invalid_json"),
        (b'{"upscale_factor":["', b"A", b'"]}', "unsupported_factor"),
        (b'{"image_base64":"', b"AA ", b'!"}', "invalid_base64"),
        (b'{"image_url":"http://a.b/","output_format":"', "İ".encode(), b'"}', "unsupported_format"),
    ],
)
def test_a_body_costs_no_more_memory_than_a_few_times_its_size(
    running: Patched, redis: Redis, begin: bytes, repeated: bytes, end: bytes, code: str
) -> None:
    size = 27_000_000
    body = begin + repeated * (size // len(repeated)) + end
    text = made(redis)
    post_job(running.url, text, {"image_url": 1})  # what the first request imports does not count
    before = peak(running.child.process)
    answer = requests.post(f"{running.url}/v1/jobs", data=body, headers=bearer(text), timeout=20)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == code
    assert len(answer.content) < 2000
    assert peak(running.child.process) - before < 2 * size


def test_a_body_may_have_as_many_commas_as_its_longest_texts(running: Patched, redis: Redis) -> None:
    body = {"image_url": f"https://example.org/{',' * 8172}", "webhook_url": f"https://example.org/{',' * 2028}"}
    assert post_job(running.url, made(redis), body).status_code == 202


def test_a_rejected_value_is_quoted_in_its_beginning(running: Patched, redis: Redis) -> None:
    text = made(redis)
    for value, shown in (
        (["x"], '["x"]'),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (["A" * 500], '["' + "A" * 78 + "…"),
        ("B" * 500, "B" * 80 + "…"),
    ):
        [error] = post_job(running.url, text, {"upscale_factor": value, "image_url": "http://a.b/"}).json()["errors"]
        assert error["given"] == shown


def test_every_request_of_any_kind_counts_for_the_pace(running: Patched, redis: Redis) -> None:
    """Also those that are refused for another reason, and repetitions; so a third one is not even read."""
    fine = {"image_url": "https://example.org/a.png"}
    kinds = (
        fine | {"model": "nothing"},
        fine | {"model_version": "9"},
        {"image_base64": "no base64!"},
        "no JSON",
        fine,
    )
    for body in kinds:
        text, same = made(redis, requests_per_minute=2), {"Idempotency-Key": secrets.token_hex(8)}
        answers = [post_job(running.url, text, body, **same) for _ in range(3)]
        assert answers[0].status_code == answers[1].status_code != 429
        assert answers[2].json()["code"] == "rate_limited", body
        assert 25 <= int(answers[2].headers["Retry-After"]) <= 30
        for path in ("/v1/uploads", "/v1/estimate", "/v1/models/nothing/jobs"):
            assert requests.post(running.url + path, headers=bearer(text), timeout=20).status_code == 429, path


def test_the_body_of_a_request_above_the_pace_is_not_waited_for(running: Patched, redis: Redis) -> None:
    text = made(redis, requests_per_minute=1)
    post_job(running.url, text)
    with running.connect() as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {text}\r\nContent-Length: 20000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize("access", ["keys", "open"])
def test_unfinished_bodies_of_one_client_do_not_fill_the_memory(
    local: Local, redis: Redis, tmp_path: Path, access: str
) -> None:
    image = {"image_base64": base64.b64encode(bytes(300_000)).decode()}
    with patched_function(local, tmp_path, {"BODY_BYTES": 1_000_000}, UPRES_ACCESS=access) as small:
        mine, other = ({**bearer(made(redis)), "X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))
        assert submit(small, image, mine).status_code == 202
        with unfinished_body(small, mine, lambda: submit(small, image, mine).status_code == 429):
            refused = submit(small, image, mine)
            assert refused.json()["code"] == "rate_limited"
            assert "1 MB of request bodies" in refused.json()["detail"]
            assert submit(small, image, other).status_code == 202
        wait_until(lambda: submit(small, image, mine).status_code == 202)


@contextmanager
def unfinished_body(running: Patched, headers: dict[str, str], is_refused: Callable[[], bool]) -> Iterator[None]:
    """Hold 800 kB of an unfinished image in the function's memory, so that another body is refused.

    If the other one was counted first, the unfinished one is refused instead, and is sent again.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: 1200000\r\n\r\n"
    image = b'{"image_base64": "' + base64.b64encode(bytes(800_000))
    for _ in range(20):
        with running.connect() as connection:
            connection.sendall(head.encode() + image)
            wait_until(lambda: is_refused() or select.select([connection], [], [], 0)[0])
            # Again, because at first both may have been refused, and the answer to this one may come a moment later.
            if is_refused() and not select.select([connection], [], [], 0)[0]:
                yield
                return
    raise AssertionError("it was refused each time")


def submit(running: Patched, body: object, headers: dict[str, str]) -> requests.Response:
    return requests.post(f"{running.url}/v1/jobs", json=body, headers=headers, timeout=20)


def test_requests_that_read_have_a_pace_that_suffices_for_polling_all_jobs(running: Patched, redis: Redis) -> None:
    key, text = api_keys.create(redis, "somebody", requests_per_minute=1, jobs_at_once=1)
    assert key.reads_per_minute == 600
    large = api_keys.create(redis, "somebody", jobs_at_once=100)[0]
    assert (large.reads_per_minute, large.reads_at_once) == (12_000, 2_000)
    job = post_job(running.url, text).json()["job_id"]
    paths = [f"/v1/jobs/{job}{what}" for what in ("", "/preview", "/result", "/original")]
    paths += ["/v1/models", "/v1/models/nothing", "/v1/webhook-secret", f"/v1/jobs/{'0' * 32}"]
    asked = [*(("GET", path) for path in paths), ("HEAD", paths[0]), ("DELETE", paths[0])]
    with requests.Session() as session:
        session.headers.update(bearer(text))
        for method, path in asked:
            assert session.request(method, running.url + path, allow_redirects=False, timeout=20).status_code != 429
        redis.set(f"upres:key:{key.key_id}:reads", int(time.time() * 1000) + 65_000)  # 650 more within this minute
        for method, path in asked:
            answer = session.request(method, running.url + path, allow_redirects=False, timeout=20)
            assert answer.status_code == 429, path
            assert int(answer.headers["Retry-After"]) <= 6


def test_requests_with_a_token_have_a_pace_and_leave_the_one_of_their_key(running: Patched, redis: Redis) -> None:
    key, text = api_keys.create(redis, "somebody", jobs_at_once=1)
    job, _, token = post_job(running.url, text).json()["events_url"].partition("/events?token=")
    most = key.reads_at_once + 500
    with requests.Session() as session:

        def refused(what: str) -> tuple[str, str]:
            """The error code and Retry-After of the first refusal of a request that is repeated."""
            for _ in range(most):
                with session.get(
                    f"{job}{what}?token={token}", allow_redirects=False, stream=True, timeout=20
                ) as answer:
                    if answer.status_code == 429:
                        return answer.json()["code"], answer.headers["Retry-After"]
            raise AssertionError("no request was refused")

        for what in ("", "/preview", "/events", "/result", "/original"):
            assert refused(what) == ("rate_limited", "1")
            most = 50  # the burst is over
        assert session.get(job, headers=bearer(text), timeout=20).ok


@given(st.lists(st.floats(0, 10), max_size=60))
def test_links_have_a_burst_and_then_their_pace(pauses: list[float]) -> None:
    now, allowed, pace = 0.0, list[float](), LinkPace()
    key = api_keys.ApiKey(key_id="0" * 8, name="", digest="", created_at=datetime.now(UTC), jobs_at_once=1)
    other = key.model_copy(update={"key_id": "1" * 8})
    with patch("upres.function.link_pace.time.monotonic", lambda: now):
        for pause in pauses:
            now += pause
            for _ in range(400):
                with suppress(RateLimited):
                    pace.count(key)
                    allowed.append(now)
        for begin in {0.0, *allowed}:
            during = [when for when in allowed if begin <= when <= now]
            assert len(during) <= SHARE * (key.reads_at_once + (now - begin) * key.reads_per_minute / 60) + 1
        pace.count(other)


def test_a_burst_of_reads_ends_after_ten_seconds_of_their_pace(redis: Redis) -> None:
    key, _ = api_keys.create(redis, "somebody", jobs_at_once=10)
    begin = time.monotonic()
    counted = 0
    with suppress(RateLimited):
        while counted < 5_000:
            api_keys.count_request(redis, key, "reads")
            counted += 1
    seconds = time.monotonic() - begin
    assert key.reads_at_once <= counted <= key.reads_at_once + key.reads_per_minute / 60 * seconds + 1


def test_bytes_of_uploads_and_of_images_in_requests_count_for_one_quota(running: Patched, redis: Redis) -> None:
    def upload(size: int) -> requests.Response:
        return requests.post(f"{running.url}/v1/uploads", json={"bytes": size}, headers=bearer(text), timeout=20)

    def inline(size: int) -> requests.Response:
        return post_job(running.url, text, {"image_base64": base64.b64encode(bytes(size)).decode()})

    text = made(redis, megabytes_per_day=1)
    assert upload(700_000).status_code == 201
    assert inline(200_000).status_code == 202
    for refused in (upload(100_001), inline(100_001)):
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
        assert "1 MB that this key may send in 24 hours 0.10 are left" in refused.json()["detail"]
        assert 86_000 < int(refused.headers["Retry-After"]) <= 86_400
    assert post_job(running.url, text).status_code == 202  # an image_url costs no bytes
    assert upload(100_000).status_code == 201
    redis.hset(f"upres:key:{text.split('_')[1]}:bytes", "ends", 1)
    assert upload(1_000_000).status_code == 201


def test_a_job_that_is_refused_for_its_bytes_takes_no_place(running: Patched, redis: Redis) -> None:
    text = made(redis, megabytes_per_day=0.01, jobs_at_once=1)
    for _ in range(2):
        body = {"image_base64": base64.b64encode(bytes(20_000)).decode()}
        assert post_job(running.url, text, body).json()["code"] == "quota_exceeded"
    assert post_job(running.url, text).status_code == 202


def test_a_key_of_an_older_release_has_the_default_quota_of_bytes(running: Patched, redis: Redis) -> None:
    key, text = api_keys.create(redis, "old")
    redis.hset(keys.API_KEYS, key.key_id, key.model_dump_json(exclude={"megabytes_per_day"}))
    assert "megabytes" not in str(redis.hget(keys.API_KEYS, key.key_id))
    assert post_job(running.url, text, {"image_base64": base64.b64encode(b"image").decode()}).status_code == 202


def test_jobs_in_hand_when_the_day_ends_are_charged_to_the_next_day(
    local: Local, running: Patched, redis: Redis
) -> None:
    key, text = api_keys.create(redis, "somebody", megapixels_per_day=64 * 48 * 4 / 1e6)
    quota = f"upres:key:{key.key_id}:pixels"
    with Client(running.url, text) as client:
        jobs = [client.submit(encoded(Image.new("RGB", (64, 48), (9, 9, n)), "PNG"), 2) for n in range(3)]
        assert redis.ttl(quota) > keys.MAX_DEADLINE_SECONDS  # so it is there when the last of these jobs is charged
        redis.hset(quota, "ends", 1)
        with worker(local):
            ends = [list(client.events(job.job_id))[-1].type for job in jobs]
    assert sorted(ends) == ["failed", "failed", "succeeded"]
    assert int(redis.hget(quota, "used") or 0) == 64 * 48 * 4
