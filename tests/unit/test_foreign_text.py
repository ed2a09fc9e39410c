"""Text from outside, such as what an image server says, is short and printable where it is stored, logged or shown."""

import io
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from tests.support.servers import IMAGE_HOST, http_server
from upres.core import leases, logs
from upres.core.errors import FetchError, NotAnImage, UndecodableImage
from upres.core.foreign_text import MAX_SENTENCE, printable
from upres.core.job_message import JobMessage
from upres.core.schema import EVENT, Event, Failed
from upres.core.settings import Settings
from upres.worker.fetch import fetch
from upres.worker.guard import FetchPolicy

HOSTILE = "\x1b[31mred\x9b0m\r\n2026-01-01 INFO forged\x00\x85\u2028\u202etxt.exe"


def test_text_is_printable_short_and_on_one_line() -> None:
    assert printable("Grüße, 日本 🎉 a b") == "Grüße, 日本 🎉 a b"
    assert printable(HOSTILE).isprintable()
    assert printable("a\nb", lines=True) == "a\nb"
    assert "\r" not in printable("a\r\nb", lines=True)
    assert (len(printable("x" * 10**6)), printable("x" * 99, 5)) == (MAX_SENTENCE, "xxxx…")


def _reason(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 404 \x1b[31m\x9b" + b"x" * 60_000 + b"\r\n\r\n")


def _no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x1b]0;title\x07\x9b\xe2\x80\xa8" + b"y" * 60_000 + b"\r\n\r\n")


def _long_line(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: \x1b" + b"y" * 70_000 + b"\r\n\r\n")


def _long_host(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: http://" + b"h" * 60_000 + b"/\r\n\r\n")


def _odd_redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: http://\xc2\x9b\x1b[1m/\r\n\r\n")


def _odd_encoding(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: \x1b[1m" + b"9" * 5000 + b"\r\n\r\n")


@pytest.mark.parametrize("answer", [_reason, _no_http, _long_line, _long_host, _odd_redirect, _odd_encoding])
def test_what_a_hostile_image_server_says_is_quoted_short_and_printable(answer: Any) -> None:
    policy = FetchPolicy((ip_network(f"{IMAGE_HOST}/32"),))
    with http_server(answer) as url, pytest.raises((FetchError, NotAnImage)) as caught:
        fetch(url, 1000, policy, 5)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def _texts(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All schemas of texts within a JSON schema, by their path."""
    if isinstance(schema, dict):
        if schema.get("type") == "string":
            yield path, schema
        for name, part in schema.items():
            yield from _texts(part, f"{path}/{name}")
    elif isinstance(schema, list):
        for part in schema:
            yield from _texts(part, path)


@pytest.mark.parametrize("kind", [*get_args(get_args(Event)[0]), JobMessage], ids=lambda kind: str(kind.__name__))
def test_every_text_of_a_stored_message_has_a_maximum_length(kind: type) -> None:
    bounds = {"maxLength", "enum", "const", "format", "pattern"}
    endless = [path for path, text in _texts(TypeAdapter(kind).json_schema()) if not bounds & text.keys()]
    assert [path for path in endless if not path.endswith(("/job_id", "/propertyNames"))] == []


def test_an_event_of_an_older_release_with_a_long_text_is_still_read() -> None:
    stored = {"job_id": "0" * 32, "type": "failed", "code": "c", "message": HOSTILE + "z" * 60_000, "retryable": False}
    read = EVENT.validate_json(json.dumps(stored))
    assert isinstance(read, Failed)
    assert (len(read.message), read.message.isprintable()) == (MAX_SENTENCE, True)


def test_the_event_of_a_failure_is_short_whatever_the_error_says() -> None:
    event = leases.failure("0" * 32, UndecodableImage(HOSTILE * 1000))
    assert len(event.model_dump_json()) < 2000
    assert event.message.isprintable()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Begins a log of a format, and gives what is written to it."""
    handlers, level = logging.root.handlers[:], logging.root.level
    out = io.StringIO()

    def begin(format: str) -> io.StringIO:
        monkeypatch.setattr("sys.stderr", out)
        logs.begin(Settings.from_environment({"UPRES_LOGS": format}))
        return out

    yield begin
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def _log_hostile_text() -> None:
    log = logging.getLogger("upres.test")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("it said %s", HOSTILE)


def test_a_log_as_text_has_no_control_characters_and_no_forged_lines(logged: Any) -> None:
    out = logged("text")
    _log_hostile_text()
    first, *others = out.getvalue().splitlines()
    assert "it said" in first
    assert all(line.startswith("    ") for line in others), "lines of an exception are indented"
    assert all(line.isprintable() for line in (first, *others))
    assert "ValueError" in out.getvalue()


def test_a_log_as_json_has_no_control_characters_and_loses_no_text(logged: Any) -> None:
    out = logged("json")
    _log_hostile_text()
    [line] = out.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"it said {HOSTILE}"
