"""Tracing: one OpenTelemetry trace from the HTTP request to each stage of the job, and log lines with its trace id."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from redis import Redis

from tests.support.paths import ROOT
from tests.support.servers import body, http_server
from tests.support.waiting import wait_until
from tests.support.workers import FAULTY
from upres.client import Client
from upres.core import workers
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def collector(spans: list[tuple[str, Span]]) -> Iterator[str]:
    """Run an OTLP collector over HTTP; it appends (service name, span) for each received span. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in received.resource_spans:
                [service] = [
                    pair.value.string_value for pair in resource.resource.attributes if pair.key == "service.name"
                ]
                spans.extend((service, span) for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@contextmanager
def parts(local: Local, redis: Redis, folder: Path, **changed: str) -> Iterator[str]:
    """Run a separate function and a separate worker that write their logs to the folder. Yields the function's URL.

    At the end both are stopped gracefully, so they send their last spans to the collector.
    """
    environment, port = {**local.environment, **changed}, free_port()
    command = [sys.executable, "-m", "upres.function", "--port", str(port)]
    with (
        Child("function", command, environment, folder) as function,
        Child("worker", [sys.executable, "-m", "upres.worker"], environment, folder) as worker,
    ):
        function.wait_ready(lambda: accepts(port))
        worker.wait_ready(lambda: bool(workers.listing(redis)))
        yield f"http://127.0.0.1:{port}"


def lines(folder: Path, name: str, job_id: str) -> list[dict[str, Any]]:
    """The JSON log lines about this job that the function or the worker wrote."""
    received = [json.loads(line) for line in (folder / f"{name}.log").read_text().splitlines()]
    return [line for line in received if line.get("job_id") == job_id]


def test_one_trace_contains_the_request_and_each_stage_of_the_job(
    local: Local, redis: Redis, tmp_path: Path, png: bytes
) -> None:
    spans: list[tuple[str, Span]] = []
    with collector(spans) as endpoint, http_server(body(png)) as image:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "60000", "UPRES_LOGS": "json"}
        with parts(local, redis, tmp_path, **settings) as url, Client(url) as client:
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            job = requests.post(
                f"{url}/v1/jobs", json={"image_url": f"{image}/a.png"}, headers=headers, timeout=10
            ).json()
            client.wait(job["job_id"])
            bad = requests.post(
                f"{url}/v1/jobs", json={"image_url": f"{image[:-1]}"}, headers=headers, timeout=10
            ).json()
            wait_until(lambda: client.status(bad["job_id"]).status == "failed")
    assert {span.trace_id.hex() for _, span in spans} == {TRACE}
    mine = {span.name: (service, span) for service, span in spans if about(span, spans) == job["job_id"]}
    parents = {name: span.parent_span_id.hex() for name, (_, span) in mine.items()}
    ids = {name: span.span_id.hex() for name, (_, span) in mine.items()}
    assert parents.pop("POST /v1/jobs") == CALLER
    assert parents.pop("send upres") == ids["POST /v1/jobs"]
    assert parents.pop("process upres") == ids["send upres"]
    assert parents == dict.fromkeys(("fetch", "decode", "upscale", "encode", "store"), ids["process upres"])
    assert mine["send upres"][0] == "upres-function"
    assert mine["upscale"][0] == "upres-worker"
    [failed] = [span for _, span in spans if span.name == "process upres" and about(span, spans) == bad["job_id"]]
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    for name in ("function", "worker"):
        assert {line["trace_id"] for line in lines(tmp_path, name, job["job_id"])} == {TRACE}


def about(span: Span, spans: list[tuple[str, Span]]) -> str | None:
    """The job id in the span's attributes, or in those of its parent or its children; None if none has it."""
    family = [one for _, one in spans if one.span_id == span.parent_span_id or one.parent_span_id == span.span_id]
    for one in (span, *family):
        for pair in one.attributes:
            if pair.key == "messaging.message.id":
                return str(pair.value.string_value)
    return None


def test_json_logs_have_one_line_for_each_state_change_of_a_job(
    local: Local, redis: Redis, tmp_path: Path, png: bytes
) -> None:
    with parts(local, redis, tmp_path, UPRES_LOGS="json") as url, Client(url) as client:
        done = client.upscale(png, 2)
    queued = lines(tmp_path, "function", done.job_id)
    assert [line["event"] for line in queued] == ["queued"]
    started, succeeded = lines(tmp_path, "worker", done.job_id)
    assert (started["event"], started["attempt"]) == ("started", 1)
    assert (succeeded["event"], succeeded["seconds"]) == ("succeeded", done.result.seconds)
    assert succeeded["message"] == f"job {done.job_id}: succeeded: 128×96"
    assert succeeded["at"].endswith("Z")
    assert not {"trace_id", "taskName"} & set(succeeded)


def test_worker_exits_with_a_hint_if_opentelemetry_is_not_installed(local: Local) -> None:
    command = [*FAULTY, "--without=opentelemetry"]
    environment = {**os.environ, **local.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert 'pip install "upres[tracing]"' in done.stderr
