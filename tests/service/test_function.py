"""Tests of the HTTP interface of the function, with real HTTP requests."""

import base64
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from openapi_spec_validator import validate
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.conftest import Post
from tests.support.leasing import image_key
from upres.client import Client
from upres.core import events, keys
from upres.core.api import JobRequest, Problem
from upres.core.errors import QueueUnavailable
from upres.core.schema import Cancelled
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.function.services import Services
from upres.function.submit import submit

URL = "https://example.org/a.png"
pytestmark = pytest.mark.without_worker


def problem(response: requests.Response) -> Problem:
    assert response.headers["Content-Type"] == "application/problem+json"
    described = Problem.model_validate_json(response.content)
    assert described.status == response.status_code
    assert described.type == f"urn:upres:error:{described.code}"
    return described


def test_a_submitted_job_is_accepted_and_queued(post: Post, local: Local, redis: Redis) -> None:
    response = post(image_url=URL)
    assert response.status_code == 202
    answer = response.json()
    assert re.fullmatch("[0-9a-f]{32}", answer["job_id"])
    assert answer["status"] == "queued"
    assert answer["channel"] == keys.channel(answer["job_id"])
    assert answer["status_url"] == response.headers["Location"] == f"{local.url}/v1/jobs/{answer['job_id']}"
    assert answer["events_url"] == f"{answer['status_url']}/events"
    assert redis.lpos("rq:queue:upres", answer["job_id"]) is not None
    [(_, event)] = events.read(redis, answer["job_id"])
    assert event.type == "queued"


def test_a_base64_image_goes_to_the_store_and_not_to_the_queue(
    post: Post, png: bytes, redis: Redis, store: Store
) -> None:
    text = base64.b64encode(png).decode()
    url = f"data:image/png;base64,{text}"
    upper = f"DATA:image/png;BASE64,{text}"
    for sent in (text, url, upper, f"\r\n {url}\n", "\n".join(text[i : i + 76] for i in range(0, len(text), 76))):
        job_id = post(image_base64=sent, image_name="ä.png").json()["job_id"]
        assert store.get(image_key(redis, job_id)) == png
        assert job_id not in image_key(redis, job_id)
        assert sum(len(value) for value in redis.hgetall(f"rq:job:{job_id}").values()) < 2000


BAD = [
    ({}, 422, "image_missing"),
    ({"image_url": URL, "image_base64": "eA=="}, 422, "image_ambiguous"),
    ({"image_base64": "not base64!"}, 422, "invalid_base64"),
    ({"image_base64": "eA="}, 422, "invalid_base64"),
    ({"image_base64": ""}, 422, "invalid_base64"),
    ({"image_base64": "data:image/png;base64"}, 422, "invalid_base64"),
    ({"image_base64": 7}, 422, "invalid_base64"),
    ({"image_base64": "A" * 1_350_000}, 413, "too_many_bytes"),
    ({"image_base64": "A" * 1_500_000}, 413, "body_too_large"),
    ({"image_url": "gopher://example.org"}, 422, "invalid_image_url"),
    ({"image_url": URL, "upscale_factor": 9}, 422, "unsupported_factor"),
    ({"image_url": URL, "model": "nonesuch"}, 422, "unknown_model"),
    ({"image_url": URL, "output_format": "bmp"}, 422, "unsupported_format"),
    ({"image_url": URL, "size": 1}, 422, "unknown_field"),
    ({"image_key": "models/faithful/labels.json"}, 422, "invalid_image_key"),
    ({"image_url": URL, "image_name": "x" * 256}, 422, "invalid_image_name"),
    ({"image_url": URL, "priority": "urgent"}, 422, "invalid_priority"),
    ({"image_url": URL, "deadline_seconds": True}, 422, "invalid_deadline"),
    ({"image_url": URL, "deadline_seconds": 0.5}, 422, "invalid_deadline"),
]


@pytest.mark.parametrize(("fields", "status", "code"), BAD)
def test_invalid_input_gets_a_problem_response_and_queues_nothing(
    post: Post, redis: Redis, fields: dict[str, object], status: int, code: str
) -> None:
    waiting = redis.llen("rq:queue:upres")
    described = problem(post(**fields))
    assert (described.status, described.code) == (status, code)
    assert described.detail.endswith((".", "…"))
    assert not described.retryable
    assert redis.llen("rq:queue:upres") == waiting


@pytest.mark.parametrize("body", [b"", b"{", b"[1]"])
def test_a_body_that_is_not_a_json_object_gets_a_problem_response(local: Local, body: bytes) -> None:
    assert problem(requests.post(f"{local.url}/v1/jobs", data=body, timeout=10)).code == "invalid_json"


def test_an_endless_request_body_is_cut_off(local: Local) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    try:
        response = requests.post(f"{local.url}/v1/jobs", data=endless(), timeout=10)
        assert problem(response).code == "body_too_large"
    except requests.ConnectionError:
        pass  # the server closed the connection before the test had sent everything
    assert sent < 64e6


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/" + "0" * 32, 404, "job_not_found"),
        ("GET", "/v1/jobs/*", 404, "job_not_found"),
        ("DELETE", "/v1/jobs/" + "0" * 32, 404, "job_not_found"),
        ("GET", "/v1/jobs/" + "0" * 32 + "/events", 404, "job_not_found"),
        ("GET", "/v1/jobs/" + "0" * 32 + "/result", 404, "job_not_found"),
    ],
)
def test_unknown_paths_methods_and_jobs_get_a_problem_response(
    local: Local, method: str, path: str, status: int, code: str
) -> None:
    described = problem(requests.request(method, local.url + path, timeout=10))
    assert (described.status, described.code) == (status, code)


def test_requests_with_the_same_idempotency_key_get_the_same_job(post: Post, redis: Redis) -> None:
    waiting = redis.llen("rq:queue:upres")
    key = {"Idempotency-Key": "first"}
    answers = [post(headers=key, image_url=URL, upscale_factor=2).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert redis.llen("rq:queue:upres") == waiting + 1
    conflict = post(headers=key, image_url=URL, upscale_factor=4)
    assert problem(conflict).code == "idempotency_conflict"
    assert post(headers={"Idempotency-Key": "second"}, image_url=URL).json()["job_id"] != answers[0]["job_id"]


def test_concurrent_requests_with_one_idempotency_key_make_one_job(post: Post, redis: Redis) -> None:
    waiting = redis.llen("rq:queue:upres")
    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(post, headers={"Idempotency-Key": "at once"}, image_url=URL) for _ in range(50)]
        ids = {future.result().json()["job_id"] for future in sent}
    assert len(ids) == 1
    assert redis.llen("rq:queue:upres") == waiting + 1


@pytest.mark.parametrize("key", ["x" * 256, "a\tb"])
def test_an_invalid_idempotency_key_gets_a_problem_response(post: Post, key: str) -> None:
    assert problem(post(headers={"Idempotency-Key": key}, image_url=URL)).code == "invalid_idempotency_key"


def test_line_breaks_in_base64_do_not_count_for_the_size_limit(post: Post) -> None:
    assert post(image_base64=base64.encodebytes(bytes(999_000)).decode()).status_code == 202
    assert problem(post(image_base64=base64.encodebytes(bytes(1_001_000)).decode())).code == "too_many_bytes"


@pytest.mark.parametrize("key", [None, "a key"], ids=str)
def test_a_lost_redis_response_does_not_queue_the_job_twice(
    local: Local, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, key: str | None
) -> None:
    """Redis runs the transaction, but the connection breaks before the response arrives."""
    services = Services(local.settings)
    services.store = local.store
    parse_response: Any = Pipeline.parse_response
    broken: list[bool] = []

    def lose_the_first(self: Pipeline, connection: Any, command: Any, **options: Any) -> Any:
        answer = parse_response(self, connection, command, **options)
        if isinstance(answer, list) and not broken:  # the response to EXEC
            broken.append(True)
            raise RedisConnectionError("lost")
        return answer

    monkeypatch.setattr(Pipeline, "parse_response", lose_the_first)
    with caplog.at_level("INFO", "upres.function"):
        accepted = submit(services, JobRequest(image_url=URL), "", key and key + secrets.token_hex(4))
    assert broken
    assert [record.getMessage() for record in caplog.records] == [f"job {accepted.job_id}: queued"]
    assert redis.lrange("rq:queue:upres", 0, -1).count(accepted.job_id.encode()) == 1
    assert [event.type for _, event in events.read(redis, accepted.job_id)] == ["queued"]


def test_an_answer_of_redis_that_comes_too_late_is_not_told_as_nothing_accepted(
    local: Local, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = Services(local.settings)
    services.store = local.store
    parse_response: Any = Pipeline.parse_response

    def time_out(self: Pipeline, connection: Any, command: Any, **options: Any) -> Any:
        answer = parse_response(self, connection, command, **options)
        if isinstance(answer, list):  # the response to EXEC
            raise RedisTimeoutError("late")
        return answer

    monkeypatch.setattr(Pipeline, "parse_response", time_out)
    with pytest.raises(QueueUnavailable, match=r"not known whether job [0-9a-f]{32} was accepted") as failed:
        submit(services, JobRequest(image_url=URL), "")
    [job_id] = re.findall("[0-9a-f]{32}", str(failed.value))
    assert events.read(redis, job_id)


def test_a_job_whose_queued_event_is_lost_is_not_found(local: Local, redis: Redis) -> None:
    job_id = "f" * 32
    events.append(redis, Cancelled(job_id=job_id))
    assert requests.get(f"{local.url}/v1/jobs/{job_id}", timeout=10).status_code == 404
    redis.delete(keys.events(job_id))


def test_a_high_priority_job_is_first_in_the_queue(post: Post, client: Client) -> None:
    post(image_url=URL)
    normal = post(image_url=URL).json()["job_id"]
    high = post(image_url=URL, priority="high").json()["job_id"]
    assert client.status(high).position == 0
    position = client.status(normal).position
    assert position is not None
    assert position >= 2


def test_a_queued_job_is_cancelled_at_once(post: Post, client: Client, redis: Redis) -> None:
    job_id = post(image_url=URL).json()["job_id"]
    assert client.status(job_id).status == "queued"
    assert client.cancel(job_id).status == "cancelled"
    assert redis.lpos("rq:queue:upres", job_id) is None
    assert not redis.exists(f"rq:job:{job_id}")
    assert client.cancel(job_id).status == "cancelled"
    assert [event.type for event in client.events(job_id)] == ["queued", "cancelled"]


@pytest.mark.parametrize("which", ["result", "original"])
def test_images_of_queued_and_cancelled_jobs_get_a_problem_response(
    post: Post, local: Local, client: Client, which: str
) -> None:
    job_id = post(image_url=URL).json()["job_id"]
    waiting = requests.get(f"{local.url}/v1/jobs/{job_id}/{which}", timeout=10)
    assert problem(waiting).code == "result_not_ready"
    assert int(waiting.headers["Retry-After"]) > 0
    client.cancel(job_id)
    assert problem(requests.get(f"{local.url}/v1/jobs/{job_id}/{which}", timeout=10)).code == "no_result"


def test_health_and_readiness_report_ok(local: Local) -> None:
    assert requests.get(f"{local.url}/healthz", timeout=10).json() == {"status": "ok"}
    ready = {"status": "ok", "redis": "ok", "store": "ok", "address": local.url}
    assert requests.get(f"{local.url}/readyz", timeout=10).json() == ready


def test_metrics_show_the_number_of_queued_jobs(local: Local, post: Post, redis: Redis) -> None:
    post(image_url=URL)
    text = requests.get(f"{local.url}/metrics", timeout=10).text
    assert f"upres_queue_jobs {float(redis.llen('rq:queue:upres'))}" in text
    assert "upres_worker_slots 0.0" in text


def test_the_openapi_document_is_valid(local: Local) -> None:
    document = requests.get(f"{local.url}/openapi.json", timeout=10).json()
    validate(document)
    fields = document["components"]["schemas"]["JobRequest"]["properties"]
    assert fields["fit"]["enum"] == ["inside", "exact"]


def test_the_page_and_its_files_are_served(local: Local) -> None:
    response = requests.get(local.url, timeout=10)
    assert response.headers["Content-Type"].startswith("text/html")
    for kind, part in re.findall(r'<(link|script)[^>]*(/web/[^"]+)"', response.text):
        found = requests.get(local.url + part, timeout=10)
        assert found.headers["Content-Type"].startswith({"link": "text/css", "script": "text/javascript"}[kind])
    assert requests.get(f"{local.url}/web/..%2Fcli.py", timeout=10).status_code == 404
    assert requests.get(f"{local.url}/web/nothing.js", timeout=10).json()["code"] == "not_found"
