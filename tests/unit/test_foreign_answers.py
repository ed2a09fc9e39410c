"""Whatever answers in place of upres or its store: only errors of the client come out, and few requests go in."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.events import RESULT
from upres.client import AsyncClient, Client, ServerUnreachable, StoreUnreachable
from upres.client import following as following_module
from upres.client import protocol as protocol_module
from upres.core.errors import UpresError

JOB = "0" * 32
ACCEPTED = {
    "job_id": JOB, "status": "queued", "channel": "c", "events_url": "http://x/e", "status_url": "http://x/s"
}  # fmt: skip


class Foreign:
    """A server that gives one raw answer to each request, and counts the requests."""

    def __init__(self) -> None:
        self.answer, self.requests = b"", 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._reply, args=(connection,), daemon=True).start()

    def _reply(self, connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):
            connection.settimeout(5)
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(1 << 16)
            self.requests += 1
            connection.sendall(self.answer.replace(b"HERE", self.url.encode()))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def foreign() -> Iterator[Foreign]:
    server = Foreign()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (protocol_module, following_module):
        monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.001)
        monkeypatch.setattr(module, "MAX_BACKOFF", 0.01)
    monkeypatch.setattr(following_module, "GONE_SECONDS", 0.05)


def raw(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Answer", *lines, "Connection: close", "", ""])
    return head.encode("latin-1", "replace") + body


def calls(client: Any, folder: Path) -> dict[str, Callable[[], Any]]:
    """Each call of a client, with arguments that upres itself would accept."""
    image = b"\x89PNG\r\n\x1a\n" * 10
    result = RESULT.model_copy(update={"sr_image_url": f"{client.url}/image"})

    async def all_async(stream: Any) -> list[Any]:
        return [one async for one in stream]

    def every(stream: Any) -> Any:
        return all_async(stream) if isinstance(client, AsyncClient) else list(stream)

    return {
        "upscale": lambda: client.upscale(image, 2),
        "submit": lambda: client.submit(image, 2),
        "wait for": lambda: client.submit(image, 2, wait=1),
        "upload": lambda: client.upload(image),
        "estimate": lambda: client.estimate(10, 10),
        "status": lambda: client.status(JOB),
        "cancel": lambda: client.cancel(JOB),
        "events": lambda: every(client.events(JOB)),
        "follow": lambda: every(client.follow(JOB, "1-0")),
        "wait": lambda: client.wait(JOB),
        "check": lambda: client.check(),
        "download": lambda: client.download(JOB),
        "download by link": lambda: client.download(result),
        "save": lambda: client.save(JOB, folder / "saved"),
        "save by link": lambda: client.save(result, folder / "saved"),
    }


def attempt(kind: type[Client] | type[AsyncClient], foreign: Foreign, name: str, folder: Path) -> Exception | None:
    """Make one call; returns the error of the client. Any other exception is raised, and the requests are counted."""
    foreign.requests = 0

    async def run() -> None:
        async with AsyncClient(foreign.url, retries=2, timeout=2) as client:
            await calls(client, folder)[name]()

    try:
        if kind is AsyncClient:
            asyncio.run(run())
        else:
            with Client(foreign.url, retries=2, timeout=2) as client:
                calls(client, folder)[name]()
    except UpresError as error:
        return error
    finally:
        assert foreign.requests <= 40, f"{foreign.requests} requests"
        assert list(folder.iterdir()) in ([], [folder / "saved"])
    return None


PAGE = b"<!doctype html><title>Log in</title>"
STRANGERS = {
    "a login page": raw(200, PAGE, Content_Type="text/html"),
    "a redirect to a login page": raw(302, Location="HERE/login?to=x"),
    "a redirect to https": raw(308, Location="https://127.0.0.1:1/v1/jobs"),
    "an empty answer": raw(200, Content_Length="0"),
    "no content": raw(204),
    "an empty stream": raw(200, Content_Type="text/event-stream"),
    "a stream of other events": raw(200, b"id: 1\ndata: {}\n\n", Content_Type="text/event-stream"),
    "a page in place of a stream": raw(200, PAGE, Content_Type="text/event-stream"),
    "JSON of another program": raw(200, b'{"hello": "world"}', Content_Type="application/json"),
    "an accepted job without a body": raw(202, b"{}", Content_Type="application/json"),
    "a maintenance page": raw(503, PAGE, Content_Type="text/html", Retry_After="0"),
    "a wrong encoding": raw(200, b"not gzip", Content_Encoding="gzip", Content_Type="application/json"),
    "half an answer": raw(200, b"{", Content_Length="1000"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "nothing": b"",
    "a redirect without an address": raw(302),
    "a redirect to nowhere": raw(302, Location="http://[::1"),
    "a redirect to a script": raw(302, Location="javascript:alert(1)"),
}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("answer", STRANGERS)
def test_no_call_takes_a_foreign_answer_for_success(
    foreign: Foreign, tmp_path: Path, kind: type[Client] | type[AsyncClient], answer: str
) -> None:
    foreign.answer = STRANGERS[answer]
    for name in calls(Client(foreign.url), tmp_path):
        if (name, answer) == ("follow", "no content"):
            continue  # 204 ends a stream whose last event the caller has seen
        assert isinstance(attempt(kind, foreign, name, tmp_path), UpresError), name
    assert list(tmp_path.iterdir()) == []


TEXTS = st.sampled_from(
    ["", "text/html", "text/event-stream", "application/json", "image/png", "0", "5", "99", "gzip", "é"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ACCEPTED, "result", "type"]), inner),
    max_leaves=8,
)
BODIES = st.binary(max_size=30) | VALUES.map(lambda value: json.dumps(value).encode())
STREAMS = VALUES.map(lambda value: b"id: 1-0\ndata: " + json.dumps(value).encode() + b"\n\n")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from([200, 200, 201, 202, 204, 301, 302, 307, 400, 401, 404, 409, 413, 418, 429, 500, 502, 503]),
    headers=st.dictionaries(
        st.sampled_from(["Content_Type", "Location", "Retry_After", "Content_Length", "Content_Encoding"]), TEXTS
    ),
    body=BODIES | STREAMS,
    name=st.sampled_from(sorted(calls(Client(), Path()))),
)
def test_any_answer_ends_in_a_result_or_an_error_of_the_client(
    foreign: Foreign, tmp_path: Path, status: int, headers: dict[str, str], body: bytes, name: str
) -> None:
    if headers.get("Retry_After") in ("5", "99"):
        headers["Retry_After"] = "99"  # 5 would be waited for
    foreign.answer = raw(status, body, **headers)
    for kind in (Client, AsyncClient):
        attempt(kind, foreign, name, tmp_path)
        (tmp_path / "saved").unlink(missing_ok=True)


def test_reconnections_wait_longer_and_longer_and_end_after_a_minute(
    foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real pauses, on a clock that the pauses move."""
    monkeypatch.undo()
    foreign.answer, foreign.requests = raw(200, Content_Type="text/event-stream"), 0
    now = [time.monotonic()]
    monkeypatch.setattr("upres.client.following.time.monotonic", lambda: now[0])
    monkeypatch.setattr("upres.client.sdk.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with Client(foreign.url) as client, pytest.raises(ServerUnreachable, match="its answers have no events"):
        list(client.events(JOB))
    assert 8 < foreign.requests < 25


def test_an_unknown_event_of_a_newer_server_is_skipped(foreign: Foreign) -> None:
    ended = json.dumps({"type": "cancelled", "job_id": JOB, "at": "2026-01-01T00:00:00Z"})
    stream = f'id: 1-0\ndata: {{"type": "praised", "job_id": "{JOB}"}}\n\nid: 2-0\ndata: {ended}\n\n'
    foreign.answer = raw(200, stream.encode(), Content_Type="text/event-stream")
    with Client(foreign.url) as client:
        assert [event.type for event in client.events(JOB)] == ["cancelled"]


@pytest.mark.parametrize("answer", ["an empty answer", "a login page", "a redirect to a login page"])
def test_a_foreign_answer_of_the_store_is_named_and_nothing_is_saved(
    foreign: Foreign, tmp_path: Path, answer: str
) -> None:
    foreign.answer = STRANGERS[answer]
    error = attempt(Client, foreign, "save by link", tmp_path)
    assert isinstance(error, StoreUnreachable)
    assert "answered" in str(error)
