"""HTTP details of the function on which proxies and caches depend: HEAD, redirects, headers, HTTP/1.0."""

from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
import requests
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import submit
from upres.core import events
from upres.core.schema import Succeeded
from upres.embedded.stack import Local
from upres.function.app import ROUTES

pytestmark = pytest.mark.without_worker

READABLE = [route.path for route in ROUTES if not route.methods or "GET" in route.methods]
"""The paths of all routes that answer GET."""


@pytest.fixture(scope="module")
def jobs(local: Local) -> dict[str, str]:
    """One job that waits and one that has succeeded."""
    with Redis.from_url(local.settings.redis_url) as redis:
        ids = {state: submit(redis) for state in ("waiting", "succeeded")}
        events.append(redis, Succeeded(job_id=ids["succeeded"], result=RESULT))
    return ids


@pytest.fixture
def connection(local: Local) -> Iterator[HTTPConnection]:
    """One connection to the function, kept alive between requests."""
    address = urlsplit(local.url)
    opened = HTTPConnection(str(address.hostname), address.port, timeout=2)
    yield opened
    opened.close()


@pytest.mark.parametrize("state", ["waiting", "succeeded"])
@pytest.mark.parametrize("route", READABLE)
def test_head_has_status_and_headers_of_get_without_a_body(
    local: Local, connection: HTTPConnection, jobs: dict[str, str], route: str, state: str
) -> None:
    path = route.format(job_id=jobs[state], model="faithful", file="page.js")
    with requests.get(local.url + path, allow_redirects=False, stream=True, timeout=10) as got:
        expected = {name.lower() for name in got.headers} - {"transfer-encoding"}
    connection.request("HEAD", path)
    answer = connection.getresponse()
    assert answer.read() == b""
    assert (answer.status, {name.lower() for name in answer.headers}) == (got.status_code, expected)
    assert answer.headers["Content-Type"] == got.headers.get("Content-Type")
    connection.request("GET", "/healthz")  # the answer comes after the end of the one to HEAD, within two seconds
    assert connection.getresponse().read() == b'{"status":"ok"}'


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/models/", "/healthz/", "/web/page.js/", "//evil.example/.."])
def test_trailing_slash_is_not_redirected(local: Local, path: str) -> None:
    """A redirect would name the host of the Host header, with http, and clients would send image and API key there."""
    for method in ("GET", "POST"):
        answer = requests.request(
            method, local.url + path, headers={"Host": "evil.example"}, allow_redirects=False, timeout=10
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_proxies_may_neither_store_nor_compress_event_streams(local: Local, jobs: dict[str, str]) -> None:
    with requests.get(f"{local.url}/v1/jobs/{jobs['waiting']}/events", stream=True, timeout=10) as answer:
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
