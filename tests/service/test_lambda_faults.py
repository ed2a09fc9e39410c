"""The Lambda handler where time is short or Redis is away: an accepted job always has an answer with its id."""

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from tests.chaos.proxy import FaultProxy
from tests.support.gateway_events import http
from tests.support.waiting import wait_until
from tests.system.aws.runtime import FunctionFailed, Lambda, running
from upres.core import api_keys, events
from upres.core.api import JobAccepted, Problem
from upres.core.schema import Cancelled
from upres.embedded.child import free_port
from upres.embedded.stack import Local

HANDLER = "upres.function.handler.handler"
JOB = {"image_url": "https://example.org/a.png"}
pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module")
def proxy(local: Local) -> Iterator[FaultProxy]:
    with FaultProxy(local.redis_port) as running_proxy:
        yield running_proxy


@pytest.fixture(scope="module")
def entry(local: Local, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambda]:
    address = local.settings.redis_url.replace(str(local.redis_port), str(proxy.port))
    environment = {**local.environment, "UPRES_ACCESS": "keys", "UPRES_REDIS_URL": address}
    with running(HANDLER, environment, tmp_path_factory.mktemp("entry")) as function:
        yield function


@pytest.fixture(scope="module")
def alone(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambda]:
    """A function whose Redis and store refuse connections."""
    environment = {
        **local.environment,
        "UPRES_ACCESS": "open",
        "UPRES_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "UPRES_S3_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
    }
    with running(HANDLER, environment, tmp_path_factory.mktemp("alone")) as function:
        yield function


@pytest.fixture(scope="module")
def bearer(local: Local) -> dict[str, str]:
    with Redis.from_url(local.settings.redis_url) as connection:
        return {"authorization": f"Bearer {api_keys.create(connection, 'somebody')[1]}"}


def accepted(answer: dict[str, Any]) -> JobAccepted:
    assert answer["statusCode"] == 202, answer
    return JobAccepted.model_validate_json(answer["body"])


def test_a_wait_ends_before_lambda_does(entry: Lambda, bearer: dict[str, str]) -> None:
    request = http("POST", "/v1/jobs", JOB, {**bearer, "prefer": "wait=25"})
    begin = time.monotonic()
    accepted(entry.invoke(request, seconds=5))
    assert time.monotonic() - begin < 4


def test_a_wait_ends_before_the_gateway_does_which_has_waited_for_a_cold_start(
    entry: Lambda, bearer: dict[str, str]
) -> None:
    request = http("POST", "/v1/jobs", JOB, {**bearer, "prefer": "wait=25"})
    request["requestContext"]["timeEpoch"] = int((time.time() - 24) * 1000)
    begin = time.monotonic()
    accepted(entry.invoke(request))
    assert time.monotonic() - begin < 4


def test_a_poll_for_events_ends_before_lambda_does(entry: Lambda, bearer: dict[str, str], redis: Redis) -> None:
    job_id = accepted(entry.invoke(http("POST", "/v1/jobs", JOB, bearer))).job_id
    [(event_id, _)] = events.read(redis, job_id)
    begin = time.monotonic()
    request = http("GET", f"/v1/jobs/{job_id}/events", headers={**bearer, "last-event-id": event_id})
    assert entry.invoke(request, seconds=4.5)["body"].startswith("retry: ")
    assert time.monotonic() - begin < 4


def test_an_accepted_job_gets_its_id_when_redis_is_lost_while_its_end_is_waited_for(
    entry: Lambda, bearer: dict[str, str], proxy: FaultProxy, redis: Redis
) -> None:
    waiting = redis.llen("rq:queue:upres")
    request = http("POST", "/v1/jobs", JOB, {**bearer, "prefer": "wait=1"})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(entry.invoke, request)
        wait_until(lambda: redis.llen("rq:queue:upres") == waiting + 1)
        with proxy.partition():
            job = accepted(answer.result())
    assert events.read(redis, job.job_id)


def test_an_event_stream_goes_on_while_redis_is_away(alone: Lambda) -> None:
    answer = alone.invoke(http("GET", f"/v1/jobs/{'0' * 32}/events"))
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer["body"].startswith("retry: ")


def test_an_invocation_whose_job_may_be_accepted_later_fails_so_that_lambda_repeats_it(alone: Lambda) -> None:
    with pytest.raises(FunctionFailed) as failed:
        alone.invoke(JOB)
    error = json.loads(str(failed.value))
    problem = Problem.model_validate_json(error["errorMessage"])
    assert (error["errorType"], problem.code, problem.status) == ("NotAccepted", "queue_unavailable", 503)


def message(message_id: str, body: object) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return {"messageId": message_id, "eventSource": "aws:sqs", "body": text}


def failed(answer: dict[str, Any]) -> list[str]:
    return [entry["itemIdentifier"] for entry in answer["batchItemFailures"]]


def test_messages_that_made_no_job_are_named_to_sqs(entry: Lambda, alone: Lambda, redis: Redis) -> None:
    good, bad = secrets.token_hex(8), {"image_url": "nothing"}
    batch = {"Records": [message(good, JOB), message("bad", bad), message("text", "{"), message("list", [1])]}
    waiting = redis.llen("rq:queue:upres")
    assert failed(entry.invoke(batch)) == ["bad", "text", "list"]
    assert failed(entry.invoke(batch)) == ["bad", "text", "list"], "a message that comes again makes no second job"
    assert redis.llen("rq:queue:upres") == waiting + 1
    assert any("invalid_image_url" in line for line in entry.log())
    assert failed(alone.invoke({"Records": [message(good, JOB)]})) == [good]


def test_messages_for_which_no_time_is_left_come_again(entry: Lambda, redis: Redis) -> None:
    waiting = redis.llen("rq:queue:upres")
    assert failed(entry.invoke({"Records": [message("late", JOB)]}, seconds=3)) == ["late"]
    assert redis.llen("rq:queue:upres") == waiting


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_stage_is_part_of_every_address(entry: Lambda, bearer: dict[str, str], redis: Redis, version: str) -> None:
    def at_stage(method: str, path: str, body: object = None) -> dict[str, Any]:
        event = http(method, f"/prod{path}", body, bearer)
        event["requestContext"]["stage"] = "prod"
        if version == "1.0":  # a REST API: the path in the event lacks the stage
            event["requestContext"] |= {"path": f"/prod{path}"}
            del event["requestContext"]["http"]
            event |= {"version": "1.0", "path": path, "httpMethod": method}
        return event

    job = accepted(entry.invoke(at_stage("POST", "/v1/jobs", JOB)))
    assert job.status_url == f"https://api.example.org/prod/v1/jobs/{job.job_id}"
    status = entry.invoke(at_stage("GET", f"/v1/jobs/{job.job_id}"))
    assert json.loads(status["body"])["status"] == "queued"
    assert entry.invoke(at_stage("GET", "/healthz"))["statusCode"] == 200
    assert entry.invoke(at_stage("GET", "/nowhere"))["statusCode"] == 404
    events.append(redis, Cancelled(job_id=job.job_id))


@pytest.mark.parametrize("source", ["aws.events", "aws.scheduler", "serverless-plugin-warmup"])
def test_a_ping_says_which_part_answers(entry: Lambda, alone: Lambda, source: str) -> None:
    ping = {"source": source, "detail-type": "Scheduled Event", "detail": {}}
    assert entry.invoke(ping) == {"redis": "ok", "store": "ok"}
    assert alone.invoke(ping) == {"redis": "queue_unavailable", "store": "store_unavailable"}


def test_a_source_that_sends_no_pings_is_an_unknown_field(entry: Lambda) -> None:
    assert entry.invoke({**JOB, "source": "somebody"})["code"] == "unknown_field"
