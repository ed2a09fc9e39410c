"""Tests of the Lambda handler: HTTP API events, buffered event streams, and direct invocations."""

import base64
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.events import queued
from tests.support.gateway_events import http
from tests.support.leasing import image_key
from tests.system.aws.runtime import FunctionFailed, running
from upres.client import sse
from upres.core import api_keys, events
from upres.core.api import JobAccepted
from upres.core.schema import Cancelled
from upres.embedded.stack import Local

Handler = Callable[[object], dict[str, Any]]
URL = "https://example.org/a.png"
IMPATIENT = (
    "from upres.function import buffered; buffered.POLL_SECONDS = 0.1; from upres.function.handler import handler"
)
pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module")
def environment(local: Local) -> dict[str, str]:
    return {**local.environment, "UPRES_ACCESS": "open"}


@pytest.fixture(scope="module")
def handler(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    with running("upres.function.handler.handler", environment, tmp_path_factory.mktemp("lambda")) as function:
        yield function.invoke


def test_a_job_can_be_submitted_and_read_through_api_gateway(handler: Handler) -> None:
    answer = handler(http("POST", "/v1/jobs", {"image_url": URL, "upscale_factor": "2"}))
    assert answer["statusCode"] == 202
    accepted = JobAccepted.model_validate_json(answer["body"])
    assert accepted.status_url == f"https://api.example.org/v1/jobs/{accepted.job_id}"
    status = handler(http("GET", f"/v1/jobs/{accepted.job_id}"))
    assert json.loads(status["body"])["upscale_factor"] == 2


def test_api_gateway_gets_problem_json_for_an_invalid_request(handler: Handler) -> None:
    answer = handler(http("POST", "/v1/jobs", {"image_url": URL, "upscale_factor": 9}))
    assert answer["statusCode"] == 422
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert answer["isBase64Encoded"] is False
    assert json.loads(answer["body"])["code"] == "unsupported_factor"


def test_an_image_sent_through_api_gateway_is_stored_unchanged(
    handler: Handler, png: bytes, local: Local, redis: Redis
) -> None:
    answer = handler(http("POST", "/v1/jobs", {"image_base64": base64.b64encode(png).decode()}))
    job_id = json.loads(answer["body"])["job_id"]
    assert local.store.get(image_key(redis, job_id)) == png


def test_direct_invocations_with_one_idempotency_key_return_one_job(handler: Handler, redis: Redis) -> None:
    answer = handler({"image_url": URL, "upscale_factor": "4", "idempotency_key": "direct"})
    accepted = JobAccepted.model_validate(answer)
    assert accepted.status_url == f"/v1/jobs/{accepted.job_id}"
    assert events.read(redis, accepted.job_id)
    again = handler({"image_url": URL, "upscale_factor": "4", "idempotency_key": "direct"})
    assert again == answer


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({}, "image_missing"),
        ({"image_url": URL, "upscale_factor": 9}, "unsupported_factor"),
        ({"a": 1}, "unknown_field"),
    ],
)
def test_an_invalid_direct_invocation_returns_a_problem(handler: Handler, event: dict[str, Any], code: str) -> None:
    answer = handler(event)
    assert (answer["code"], answer["status"]) == (code, 422)


@pytest.mark.parametrize("event", [None, [], "text", 7])
def test_an_event_that_is_not_a_json_object_returns_invalid_json(handler: Handler, event: Any) -> None:
    assert handler(event)["code"] == "invalid_json"


def test_a_direct_invocation_with_an_api_key_counts_for_its_pace(handler: Handler, redis: Redis) -> None:
    _, text = api_keys.create(redis, "somebody", requests_per_minute=1)
    event = {"image_url": 1, "api_key": text}
    assert handler(event)["code"] == "invalid_image_url"
    with pytest.raises(FunctionFailed, match="rate_limited"):
        handler(event)


def test_an_idempotency_key_that_is_not_a_string_returns_a_problem(handler: Handler) -> None:
    assert handler({"image_url": URL, "idempotency_key": 7})["code"] == "invalid_idempotency_key"


def read(answer: dict[str, Any]) -> list[sse.ServerSentEvent]:
    assert answer["statusCode"] == 200
    assert answer["headers"]["content-type"].startswith("text/event-stream")
    assert answer["body"].startswith("retry: ")
    return list(sse.decode([answer["body"].encode()]))


def test_each_event_stream_request_returns_only_events_after_the_last_id(handler: Handler, redis: Redis) -> None:
    """Do as EventSource does behind a gateway that buffers: request again with the last event id, until status 204."""
    job_id = secrets.token_hex(16)
    events.append(redis, queued(job_id))
    path = f"/v1/jobs/{job_id}/events"
    [first] = read(handler(http("GET", path)))
    assert json.loads(first.data)["type"] == "queued"

    later = threading.Timer(0.3, events.append, (redis, Cancelled(job_id=job_id)))
    later.start()
    [last] = read(handler(http("GET", path, headers={"last-event-id": first.id})))
    later.join()
    assert json.loads(last.data)["type"] == "cancelled"
    assert handler(http("GET", path, headers={"last-event-id": last.id}))["statusCode"] == 204


def test_an_event_stream_request_without_new_events_returns_none(
    environment: dict[str, str], tmp_path: Path, redis: Redis
) -> None:
    job_id = secrets.token_hex(16)
    event_id = events.append(redis, queued(job_id))
    assert event_id
    request = http("GET", f"/v1/jobs/{job_id}/events", headers={"last-event-id": event_id})
    with running("around.handler", environment, tmp_path, IMPATIENT) as function:
        assert read(function.invoke(request)) == []


def test_prefer_wait_returns_202_after_its_time_or_200_when_the_job_ends(handler: Handler, redis: Redis) -> None:
    body = {"image_url": URL}
    late = handler(http("POST", "/v1/jobs", body, {"prefer": "wait=1"}))
    assert (late["statusCode"], late["headers"]["preference-applied"]) == (202, "wait=1")

    def cancel() -> None:
        [job] = [
            key for key in redis.scan_iter(match="rq:job:*") if key.decode()[7:] != json.loads(late["body"])["job_id"]
        ]
        events.append(redis, Cancelled(job_id=job.decode()[7:]))

    timer = threading.Timer(0.5, cancel)
    for job_id in (key.decode()[7:] for key in redis.scan_iter(match="rq:job:*")):
        if job_id != json.loads(late["body"])["job_id"]:
            events.append(redis, Cancelled(job_id=job_id))
    timer.start()
    soon = handler(http("POST", "/v1/jobs", body, {"prefer": "wait=20"}))
    timer.join()
    assert (soon["statusCode"], json.loads(soon["body"])["status"]) == (200, "cancelled")
