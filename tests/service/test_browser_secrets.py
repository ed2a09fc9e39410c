"""upres.js gives the API key to its own server only, and gives back no links but those of http and https."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.support.browser import Visit
from tests.support.events import RESULT
from tests.support.foreign import JOB
from tests.support.servers import http_server
from upres.embedded.stack import Local

KEY = "upres_secret"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Allow-Methods": "*",
}
EACH_CALL = """async ([url, base, key, job]) => {
  const { Upres } = await import(`${url}/web/upres.js`);
  const upres = new Upres(base, { key });
  const calls = {
    status: () => upres.status(job),
    cancel: () => upres.cancel(job),
    preview: () => upres.preview(job),
    subscribe: () => upres.subscribe(job, () => {}, { signal: AbortSignal.timeout(300) }),
    link: async () => upres.link(job),
  };
  const outcome = ([name, call]) => call().then((value) => [name, value], (error) => [name, error.code ?? error.name]);
  return Object.fromEntries(await Promise.all(Object.entries(calls).map(outcome)));
}"""


@contextmanager
def recorded(body: str, status: int = 200, **headers: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that gives one answer to all; yields its URL, and the path and the Authorization of each request."""
    seen: list[tuple[str, str]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.command != "OPTIONS":
            seen.append((handler.path, handler.headers.get("Authorization", "")))
        handler.send_response(200 if handler.command == "OPTIONS" else status)
        for name, value in {**CORS, **headers, "Content-Length": str(len(body.encode()))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body.encode())

    with http_server(answer, "127.0.0.1") as url:
        yield url, seen


def job_at(url: str) -> dict[str, str | None]:
    """A job as somebody may have stored it: its addresses name a server of their choice."""
    return {"job_id": JOB, "status_url": f"{url}/v1/jobs/{JOB}", "events_url": f"{url}/v1/jobs/{JOB}/events?token=t"}


def used(visit: Visit, local: Local, base: str, job: dict[str, str | None], key: str = KEY) -> dict[str, Any]:
    visit.page.goto(local.url)
    outcomes: dict[str, Any] = visit.page.evaluate(EACH_CALL, [local.url, base, key, job])
    visit.wrong = []  # the browser's messages about the answers
    return outcomes


def test_the_key_goes_to_the_base_only_whatever_addresses_a_job_has(visit: Visit, local: Local) -> None:
    with recorded('{"status": "queued", "tiles": []}') as (own, mine), recorded("{}") as (other, theirs):
        received = used(visit, local, f"{own}/prefix", job_at(other))
    assert theirs
    assert {authorization for _, authorization in theirs} == {""}
    assert mine
    assert all(path.startswith(f"/prefix/v1/jobs/{JOB}") for path, _ in mine)
    assert {authorization for _, authorization in mine} == {f"Bearer {KEY}"}
    assert received["status"] == received["cancel"] == {"status": "queued", "tiles": []}


def test_the_key_follows_no_redirect(visit: Visit, local: Local) -> None:
    with (
        recorded('{"status": "queued", "tiles": []}') as (other, theirs),
        recorded("", 307, Location=f"{other}/taken") as (own, _),
    ):
        received = used(visit, local, own, job_at(own))
    assert {authorization for _, authorization in theirs} <= {""}  # the event stream, which has no key
    assert received["status"] == received["cancel"] == received["preview"] == "http_error"


@pytest.mark.parametrize("job_id", ["../../elsewhere", "", "x", None])
def test_a_job_without_a_job_id_is_asked_nowhere(visit: Visit, local: Local, job_id: str | None) -> None:
    with recorded('{"status": "queued"}') as (own, mine):
        received = used(visit, local, own, {**job_at(own), "job_id": job_id})
    assert received["status"] == received["cancel"] == received["preview"] == "no_job"
    assert {authorization for _, authorization in mine} <= {""}  # the event stream, which has no key


SCRIPTS = ["javascript:alert(1)", "JavaScript://x/%0aalert(1)", "data:text/html,x", "blob:x", "", "//example.org/x"]


@pytest.mark.parametrize("address", SCRIPTS)
def test_links_of_other_schemes_are_never_given_back(visit: Visit, local: Local, address: str) -> None:
    result = RESULT.model_copy(update={"sr_image_url": address})
    ended = f'{{"type": "succeeded", "result": {result.model_dump_json()}}}'
    state = f'{{"status": "succeeded", "result": {result.model_dump_json()}}}'
    with (
        recorded(f"id: 1-0\ndata: {ended}\n\n", 200, **{"Content-Type": "text/event-stream"}) as (own, _),
        recorded(state) as (other, _),
    ):
        job = {**job_at(other), "events_url": f"{own}/events"}
        received = used(visit, local, other, job, key="")
        unlinked = used(visit, local, other, {**job, "status_url": address}, key="")
    assert (received["status"], received["cancel"], received["subscribe"]) == ("http_error",) * 3
    assert (unlinked["status"], unlinked["cancel"], unlinked["link"]) == ("no_job",) * 3
