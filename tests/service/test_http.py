"""HTTP details of the function on which proxies and caches depend: HEAD, redirects, headers, HTTP/1.0."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import submit
from tests.support.servers import JOB, Patched, patched_function, post_job
from upres.client import sse
from upres.core import api_keys, events, keys
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


@pytest.fixture(scope="module")
def open_function(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    """A function that accepts all clients, those of HTTP/1.0 too, and logs JSON."""
    folder = tmp_path_factory.mktemp("open")
    with patched_function(local, folder, {}, UPRES_ACCESS="open", UPRES_LOGS="json") as running:
        yield running


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


def test_two_prefer_lines_are_one_list(connection: HTTPConnection) -> None:
    body = json.dumps(JOB).encode()
    connection.putrequest("POST", "/v1/jobs")
    for name, value in (("Prefer", "respond-async"), ("Prefer", "wait=1"), ("Content-Length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders(body)
    assert connection.getresponse().headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("coding", ["deflate", "deflate, gzip", "br"])
def test_a_request_that_is_compressed_in_another_way_than_gzip_gets_415(local: Local, coding: str) -> None:
    answer = post_job(local.url, None, **{"Content-Encoding": coding})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")
    assert answer.headers["Accept-Encoding"] == "gzip, identity"
    assert post_job(local.url, None, **{"Content-Encoding": "Identity"}).status_code == 202


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_event_stream_for_http_1_0_has_no_chunks_and_ends_with_the_connection(
    open_function: Patched, jobs: dict[str, str], method: str
) -> None:
    request = f"{method} /v1/jobs/{jobs['succeeded']}/events HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    with open_function.connect() as connection:
        connection.sendall(request.encode())
        head, _, body = b"".join(iter(lambda: connection.recv(1 << 16), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    received = [json.loads(frame.data)["type"] for frame in sse.decode([body])]
    assert received == (["queued", "succeeded"] if method == "GET" else [])


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere"])
def test_an_answer_for_http_1_0_is_complete(open_function: Patched, path: str) -> None:
    expected = requests.get(open_function.url + path, timeout=10)
    with open_function.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.partition(b"\r\n\r\n")[2] == expected.content


def logged(running: Patched, job_id: str) -> list[dict[str, str]]:
    """The log lines about a job."""
    return [json.loads(line) for line in running.child.log.read_text().splitlines() if job_id in line]


def test_a_request_id_is_repeated_in_the_answer_and_in_the_log(open_function: Patched) -> None:
    answer = post_job(open_function.url, None, **{"X-Request-ID": "abc-DEF_1.2:3"})
    assert answer.headers["X-Request-ID"] == "abc-DEF_1.2:3"
    [line] = logged(open_function, answer.json()["job_id"])
    assert line["request_id"] == "abc-DEF_1.2:3"
    failed = requests.get(f"{open_function.url}/nowhere", headers={"X-Request-ID": "7"}, timeout=10)
    assert failed.headers["X-Request-ID"] == "7"


@pytest.mark.parametrize("unsafe", ["x" * 129, 'a"b', "a b", "<script>", "\xe4", ""])
def test_an_unsafe_request_id_is_ignored(open_function: Patched, unsafe: str) -> None:
    answer = post_job(open_function.url, None, **{"X-Request-ID": unsafe})
    assert answer.status_code == 202
    assert "X-Request-ID" not in answer.headers
    [line] = logged(open_function, answer.json()["job_id"])
    assert "request_id" not in line


BROKEN = """
from upres.core import served_models
def resolve(*arguments): raise ValueError("damaged")
served_models.resolve = resolve
"""
"""For a function that makes an error which nobody foresaw, at each submission."""


def test_an_unexpected_error_hides_details_and_has_security_headers(local: Local, redis: Redis, tmp_path: Path) -> None:
    key, text = api_keys.create(redis, "somebody")
    with patched_function(local, tmp_path, {}, before=BROKEN, UPRES_ACCESS="keys") as broken:
        answer = post_job(broken.url, text, Origin="https://page.example")
    redis.hdel(keys.API_KEYS, key.key_id)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "damaged" not in answer.text
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
