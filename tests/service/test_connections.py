"""Connections that send too much, too slowly or nothing, and answers that come before the end of a request."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse

import pytest
import requests

from tests.support.servers import Patched, patched_function
from upres.embedded.stack import Local
from upres.function import limits

pytestmark = pytest.mark.without_worker

SECONDS = 0.5
CONSTANTS = {"HEAD_SECONDS": SECONDS, "BODY_SECONDS": SECONDS, "LINGER_SECONDS": 0.3, "LINGER_BYTES": 8 << 20}
HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MEGABYTE = bytes(1 << 20).replace(b"\0", b"x")


@pytest.fixture(scope="module")
def impatient(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    """A separate function with short timeouts and a small limit of the bytes that it discards."""
    with patched_function(local, tmp_path_factory.mktemp("impatient"), CONSTANTS) as running:
        yield running


@pytest.fixture
def connection(impatient: Patched) -> Iterator[socket.socket]:
    with impatient.connect() as opened:
        yield opened


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer: its status and its body."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def until_closed(connection: socket.socket, data: bytes) -> Iterator[int]:
    """Send the data again and again until the function closes the connection, which it has to do before 30 times."""
    for number in range(30):
        try:
            connection.sendall(data)
        except ConnectionError:
            return
        yield number
    pytest.fail("the function reads everything")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: x\r\n" % number for number in range(10_000)),
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: " + b"x" * 140_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 140_000,
    ],
    ids=["address", "header", "headers", "complete", "trailer", "chunk extension"],
)
def test_a_head_of_more_than_64_kib_is_refused(connection: socket.socket, sent: bytes) -> None:
    connection.sendall(sent)
    status, body = answer(connection)
    assert status == 431
    assert b'"head_too_large"' in body
    assert b"64 KiB" in body
    assert connection.recv(1) == b""


def test_a_head_of_60_kib_is_served(connection: socket.socket) -> None:
    for _ in range(3):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 60_000 + b"\r\n\r\n")
        assert answer(connection)[0] == 200


def test_an_endless_header_costs_neither_memory_nor_the_time_of_others(
    impatient: Patched, connection: socket.socket
) -> None:
    process = impatient.child.process
    before, slowest = process.memory_info().rss, 0.0
    connection.sendall(b"GET / HTTP/1.1\r\nX: ")
    for _ in until_closed(connection, MEGABYTE):
        begin = time.monotonic()
        assert requests.get(f"{impatient.url}/healthz", timeout=10).status_code == 200
        slowest = max(slowest, time.monotonic() - begin)
    assert process.memory_info().rss - before < 8 << 20
    assert slowest < 0.5


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", 408),
        (HEAD + b"Content-Length: 9\r\n\r\n", 408),
        (HEAD + b"Content-Length: 9\r\n\r\n{", 408),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 408),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{", 200),
    ],
    ids=["nothing", "half a line", "half a head", "no body", "half a body", "no end", "body that is not read"],
)
def test_a_connection_without_progress_is_closed(connection: socket.socket, sent: bytes, status: int | None) -> None:
    begin = time.monotonic()
    connection.sendall(sent)
    if status:
        assert answer(connection)[0] == status
    assert connection.recv(1) == b""
    assert SECONDS / 2 < time.monotonic() - begin < 5


def test_as_many_requests_as_a_connection_may_have_wait_for_their_turn(connection: socket.socket) -> None:
    connection.sendall((HEAD + b"Content-Length: 2\r\n\r\n{}") * (1 + limits.PIPELINED))
    received = b""
    while received.count(b"HTTP/1.1 422 ") <= limits.PIPELINED:
        received += connection.recv(1 << 16) or pytest.fail(f"{received!r}")


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs/nothing/result"])
def test_endless_requests_that_wait_for_an_answer_are_cut_off(impatient: Patched, path: str) -> None:
    """Uvicorn alone keeps thousands of them for a connection: five connections stopped all others for a minute."""
    process = impatient.child.process
    before, sent = process.memory_info().rss, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 3000
    with ExitStack() as opened:
        for _ in range(5):
            connection = opened.enter_context(impatient.connect())
            assert list(until_closed(connection, sent)) != []
        assert requests.get(f"{impatient.url}/healthz", timeout=5).status_code == 200
    assert process.memory_info().rss - before < 8 << 20
    assert "Traceback" not in impatient.child.log.read_text()


def test_an_idle_connection_is_kept_after_an_answer(connection: socket.socket) -> None:
    for _ in range(2):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert answer(connection)[0] == 200
        time.sleep(SECONDS * 1.5)
    connection.sendall(b"GET /healthz HTTP/1.1\r\n")
    assert answer(connection)[0] == 408


def test_a_slow_body_that_makes_progress_is_read(connection: socket.socket) -> None:
    body = b'{"image_url": "https://example.org/a.png"}'
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
    for start in range(0, len(body), 10):  # five parts, in longer than SECONDS
        time.sleep(SECONDS / 3)
        connection.sendall(body[start : start + 10])
    assert answer(connection)[0] == 202


@pytest.mark.parametrize(
    ("line", "status"),
    [("POST /v1/jobs", 413), ("PUT /v1/jobs", 405), ("POST /nowhere", 404), ("GET /healthz", 200), ("& /", 400)],
)
@pytest.mark.parametrize("framing", ["Content-Length: 5242880\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n500000\r\n"])
def test_an_answer_before_the_end_of_the_body_arrives(
    connection: socket.socket, line: str, status: int, framing: str
) -> None:
    """The client sends the whole body before it reads, as proxies do; a reset would destroy the answer."""
    connection.sendall(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}".encode())
    for _ in range(5):
        connection.sendall(MEGABYTE)
    if "chunked" in framing:
        connection.sendall(b"\r\n0\r\n\r\n")
    assert answer(connection)[0] == status
    assert connection.recv(1) == b""


def test_a_body_known_to_be_too_large_is_refused_at_once(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
    status, body = answer(connection)
    assert (status, b'"body_too_large"' in body) == (413, True)


def test_an_endless_body_is_cut_off(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    assert list(until_closed(connection, b"100000\r\n" + MEGABYTE + b"\r\n"))


def test_a_client_that_leaves_in_the_middle_of_a_body_causes_no_error_in_the_log(impatient: Patched) -> None:
    with impatient.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
    requests.get(f"{impatient.url}/readyz", timeout=10)
    assert "Traceback" not in impatient.child.log.read_text()
