"""What receivers of webhooks answer, and what the worker makes of it: delivered, tried again or given up."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from redis import Redis

from tests.chaos.proxy import RESET
from tests.support.leasing import submit
from tests.support.servers import IMAGE_HOST
from upres.core import events, keys, webhooks
from upres.core.schema import Cancelled
from upres.embedded.stack import Local
from upres.worker import fetch
from upres.worker.outage_log import OutageLog
from upres.worker.webhooks import WebhookDispatcher

Answer = Callable[[socket.socket], None]
LIMIT_SECONDS = 0.5
"""Time for one attempt in these tests, instead of ten seconds."""


def raw(text: str, body: bytes = b"") -> Answer:
    """Answer with a head, given by its lines, and a body."""
    data = "\r\n".join([*text.split("\n"), "", ""]).encode() + body
    return lambda connection: connection.sendall(data)


def endless(begin: bytes, piece: bytes) -> Answer:
    """Answer with a body, or with headers, that never end."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(piece)

    return answer


def reset(connection: socket.socket) -> None:
    """Abort the connection without an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def silent(connection: socket.socket) -> None:
    """Read, and answer nothing, until the sender has left."""
    while connection.recv(1 << 16):
        pass


@contextmanager
def receiver(answer: Answer) -> Iterator[str]:
    """A receiver that reads a request as far as its body's end, and answers; yields its URL."""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with closing(connection), suppress(OSError):
                    received = b""
                    while not received.endswith(b"}"):
                        received += connection.recv(1 << 16)
                    answer(connection)

    with socket.create_server((IMAGE_HOST, 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield f"http://{IMAGE_HOST}:{listener.getsockname()[1]}/hook"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


DELIVERED: dict[str, Answer] = {
    "204": raw("HTTP/1.1 204 No Content"),
    "JSON": raw("HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 2", b"{}"),
    "HTTP/1.0, which ends with the connection": raw("HTTP/1.0 200 OK", b"ok"),
    "chunks": raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n"),
    "a body that is cut off": raw("HTTP/1.1 200 OK\nContent-Length: 1000", b"half"),
    "a body that never ends": endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 16)),
    "early hints first": raw("HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 202 Accepted\nContent-Length: 0"),
}
GIVEN_UP: dict[str, Answer] = {"410, which is for good": raw("HTTP/1.1 410 Gone\nContent-Length: 0")}
AGAIN: dict[str, Answer] = {
    "406, for those who negotiate": raw("HTTP/1.1 406 Not Acceptable\nContent-Length: 0"),
    "401, for a wrong secret": raw("HTTP/1.1 401 Unauthorized\nContent-Length: 0"),
    "a redirect, which is not followed": raw(f"HTTP/1.1 302 Found\nLocation: http://{IMAGE_HOST}/\nContent-Length: 0"),
    "500": raw("HTTP/1.1 500 Internal Server Error\nContent-Length: 0"),
    "another protocol": raw("SSH-2.0-OpenSSH_9.2p1"),
    "a closed connection": lambda connection: None,
    "a reset": reset,
    "nothing": silent,
    "headers that never end": endless(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 1000),
}


def due(redis: Redis, url: str) -> webhooks.Due:
    """A webhook that is due."""
    events.append(redis, Cancelled(job_id=submit(redis, webhook_url=url)))
    found = webhooks.due(redis)
    assert found
    return found


@pytest.mark.parametrize("name", [*DELIVERED, *GIVEN_UP, *AGAIN])
def test_what_a_receiver_answers_decides_whether_the_webhook_is_sent_again(
    local: Local, isolated_redis: Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(fetch, "TOTAL_SECONDS", LIMIT_SECONDS)
    settings = local.settings.model_copy(update={"redis_url": local.settings.redis_url.removesuffix("/0") + "/1"})
    dispatcher = WebhookDispatcher(settings, local.store, OutageLog("Redis"))
    with receiver({**DELIVERED, **GIVEN_UP, **AGAIN}[name]) as url:
        dispatcher._try(due(isolated_redis, url))
    assert isolated_redis.zcard(keys.WEBHOOKS) == (1 if name in AGAIN else 0)
