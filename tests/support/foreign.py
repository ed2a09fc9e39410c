"""A server that is not upres: a login page, a proxy, another program, or nothing that speaks HTTP."""

import json
import socket
import threading
from collections import Counter
from contextlib import closing, suppress
from typing import Self

from hypothesis import strategies as st

JOB = "0" * 32
ACCEPTED = {
    "job_id": JOB, "status": "queued", "channel": "c", "events_url": "http://x/e", "status_url": "http://x/s"
}  # fmt: skip


class Foreign:
    """A server that gives raw answers, and counts the requests.

    `answers` has the answers by the first segment of the path; all other paths get `answer`.
    """

    def __init__(self) -> None:
        self.answer = b""
        self.answers: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
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
            segment = received.split(b" ")[1].decode().split("/")[1]
            self.requests[segment] += 1
            connection.sendall(self.answers.get(segment, self.answer).replace(b"HERE", self.url.encode()))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def raw(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Answer", *lines, "Connection: close", "", ""])
    return head.encode("latin-1", "replace") + body


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


@st.composite
def _answers(draw: st.DrawFn) -> bytes:
    statuses = [200, 200, 201, 202, 204, 301, 302, 307, 400, 401, 404, 409, 413, 418, 429, 500, 502, 503]
    names = ["Content_Type", "Location", "Retry_After", "Content_Length", "Content_Encoding"]
    headers = draw(st.dictionaries(st.sampled_from(names), TEXTS))
    if headers.get("Retry_After") == "5":
        headers["Retry_After"] = "99"  # 5 would be waited for
    return raw(draw(st.sampled_from(statuses)), draw(BODIES | STREAMS), **headers)


ANSWERS = _answers()
"""Any HTTP answer: statuses, headers and bodies that fit together or not."""
