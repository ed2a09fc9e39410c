"""The Lambda functions run under AWS's own runtime client, with a real Redis, store and worker."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from redis import Redis

from tests.support.gateway_events import http
from tests.support.images import opened
from tests.support.leasing import submit, taken
from tests.support.waiting import wait_until
from tests.system.aws.runtime import NAME, FunctionFailed, Lambda, running
from upres.core import keys
from upres.embedded.stack import Local


@pytest.fixture(scope="module")
def entry(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambda]:
    environment = {**local.environment, "UPRES_ACCESS": "open", "UPRES_LOGS": "auto"}
    with running("upres.function.handler.handler", environment, tmp_path_factory.mktemp("entry")) as function:
        yield function


def test_a_job_goes_from_the_request_to_the_enlarged_image(entry: Lambda, png: bytes) -> None:
    image = base64.b64encode(png).decode()
    answer = entry.invoke(http("POST", "/v1/jobs", {"image_base64": image, "upscale_factor": 2}))
    assert answer["statusCode"] == 202
    job_id = json.loads(answer["body"])["job_id"]
    received = [json.loads(line) for line in entry.log() if job_id in line]
    assert [(line["job_id"], line["event"]) for line in received] == [(job_id, "queued")]
    job = f"/v1/jobs/{job_id}"
    wait_until(lambda: body(entry.invoke(http("GET", job)))["status"] == "succeeded")
    redirect = entry.invoke(http("GET", f"{job}/result"))
    assert redirect["statusCode"] == 302
    assert opened(requests.get(redirect["headers"]["location"], timeout=20).content).size == (128, 96)


def test_an_upload_link_stores_an_image_directly_in_the_bucket(entry: Lambda, png: bytes, local: Local) -> None:
    link = body(entry.invoke(http("POST", "/v1/uploads", {"bytes": len(png)})))
    assert requests.put(link["upload_url"], data=png, timeout=20).ok
    assert local.store.get(link["image_key"]) == png


def test_the_bundle_contains_every_file_that_the_function_serves(entry: Lambda) -> None:
    for path in ("/healthz", "/readyz", "/", "/web/upres.js", "/openapi.json"):
        answer = entry.invoke(http("GET", path))
        assert (path, answer["statusCode"]) == (path, 200)


def test_the_next_event_reuses_the_open_connections(entry: Lambda, png: bytes, local: Local) -> None:
    """Lambda keeps the process between two events; the function opens no new connection to Redis or the store."""
    request = http("POST", "/v1/jobs", {"image_base64": base64.b64encode(png).decode(), "upscale_factor": 2})
    entry.invoke(request)
    before = connections(entry, local)
    assert {port for port, _ in before} == ports(local)
    assert entry.invoke(request)["statusCode"] == 202
    assert connections(entry, local) == before


def ports(local: Local) -> set[int]:
    store = local.environment["UPRES_S3_ENDPOINT_URL"]
    return {local.redis_port, int(store.rpartition(":")[2])}


def connections(function: Lambda, local: Local) -> set[tuple[int, int]]:
    """Return (remote port, local port) of each connection of the function's process to Redis or the store."""
    found = psutil.Process(function.process.pid).net_connections("tcp")
    return {(c.raddr.port, c.laddr.port) for c in found if c.raddr and c.raddr.port in ports(local)}


def body(answer: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(answer["body"])
    return read


@pytest.fixture
def backlog(local: Local, isolated_redis: Redis, tmp_path: Path) -> Iterator[Lambda]:
    environment = {"UPRES_REDIS_URL": local.settings.redis_url.removesuffix("/0") + "/1"}
    with running("upres.function.backlog.handler", environment, tmp_path) as function:
        yield function


def received(function: Lambda) -> dict[str, Any]:
    """Return the last line of the function's log, parsed as JSON, as CloudWatch does."""
    line: dict[str, Any] = json.loads(function.log()[-1])
    return line


def test_the_backlog_function_logs_the_queue_state_as_cloudwatch_metrics(
    backlog: Lambda, isolated_redis: Redis
) -> None:
    backlog.invoke({})
    first = received(backlog)
    [metrics] = first["_aws"]["CloudWatchMetrics"]
    assert (metrics["Namespace"], metrics["Dimensions"]) == ("upres", [["FunctionName"]])
    assert first["FunctionName"] == NAME
    assert {metric["Name"]: first[metric["Name"]] for metric in metrics["Metrics"]} == {
        "JobsWaiting": 0, "JobsRunning": 0, "JobsEnded": 0, "DeadLetters": 0, "WorkersReady": 0, "OldestSeconds": 0,
    }  # fmt: skip
    for _ in range(3):
        submit(isolated_redis)
    taken(isolated_redis)
    isolated_redis.hset(keys.JOB_COUNTS, mapping={"faithful|succeeded|": 2, "faithful|failed|undecodable_image": 1})
    backlog.invoke({})
    now = received(backlog)
    assert (now["JobsWaiting"], now["JobsRunning"], now["JobsEnded"]) == (2, 1, 3)
    assert now["OldestSeconds"] > 0


def test_the_backlog_function_logs_no_metrics_when_redis_is_unreachable(tmp_path: Path) -> None:
    """If it logged zeros, scaling would stop the workers."""
    with running("upres.function.backlog.handler", {"UPRES_REDIS_URL": "redis://127.0.0.1:1/0"}, tmp_path) as function:
        with pytest.raises(FunctionFailed, match="ConnectionError"):
            function.invoke({})
        assert not any("JobsWaiting" in line for line in function.log())
