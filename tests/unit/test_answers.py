"""Answers of image servers and webhook receivers that are neither an image nor an error, and what is sent to them."""

import gzip
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network

import pytest

from tests.support.servers import IMAGE_HOST, body, http_server
from upres.core.errors import NotAnImage, UpresError, UrlAnsweredError
from upres.worker.fetch import fetch, post
from upres.worker.guard import FetchPolicy
from upres.worker.webhooks import retry_after

POLICY = FetchPolicy((ip_network(f"{IMAGE_HOST}/32"),))
PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"


def test_a_signed_path_arrives_as_it_was_given_also_after_a_redirect() -> None:
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.path)
        target = {"Location": "/b%7E%2D?s=%2fx%3d"} if len(seen) == 1 else {}
        body(b"image", 302 if target else 200, target)(handler)

    with http_server(answer) as url:
        assert fetch(f"{url}/a%7E%2D%c3%a9?s=%2fx&t=a b", 1000, POLICY) == b"image"
    assert seen == ["/a%7E%2D%c3%a9?s=%2fx&t=a%20b", "/b%7E%2D?s=%2fx%3d"]


@pytest.mark.parametrize(
    ("data", "status", "headers", "kind", "says"),
    [
        (PAGE, 200, {"Content-Type": "text/html; charset=utf-8"}, NotAnImage, r"web page \(HTML\)"),
        (PAGE, 200, {"Content-Type": "image/png"}, NotAnImage, r"web page \(HTML\)"),
        (b"<head></head>", 200, {"Content-Type": "text/html"}, NotAnImage, r"web page \(HTML\)"),
        (b"", 200, {}, NotAnImage, "200 with an empty body"),
        (b"", 204, {}, NotAnImage, "204 with an empty body"),
        (gzip.compress(b"x", mtime=0), 200, {"Content-Encoding": "gzip"}, UrlAnsweredError, r"compressed \(gzip\)"),
        (b"x", 200, {"Content-Encoding": "BR"}, UrlAnsweredError, r"compressed \(br\)"),
        (b"moved", 302, {}, UrlAnsweredError, "302 Found without a Location"),
        (b"choose", 300, {"Location": "/a"}, UrlAnsweredError, "300 Multiple Choices"),
        (b"", 304, {}, UrlAnsweredError, "304 Not Modified"),
    ],
)
def test_what_is_no_image_is_named_as_what_it_is(
    data: bytes, status: int, headers: dict[str, str], kind: type[UpresError], says: str
) -> None:
    with http_server(body(data, status, headers)) as url, pytest.raises(kind, match=says) as caught:
        fetch(url, 1000, POLICY)
    assert not caught.value.retryable


@pytest.mark.parametrize("headers", [{"Content-Type": "text/html"}, {"Content-Encoding": "utf-8"}])
def test_an_image_with_a_wrong_header_is_fetched(headers: dict[str, str]) -> None:
    with http_server(body(b"\x89PNG\r\n", headers=headers)) as url:
        assert fetch(url, 1000, POLICY) == b"\x89PNG\r\n"


@pytest.mark.parametrize("status", [408, 425])
def test_timeouts_of_the_server_are_retryable(status: int) -> None:
    with http_server(body(b"no", status)) as url, pytest.raises(UrlAnsweredError) as caught:
        fetch(url, 1000, POLICY)
    assert caught.value.retryable


@pytest.mark.parametrize("early", [b"100 Continue\r\n\r\n", b"103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"])
def test_informational_answers_are_skipped(early: bytes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.wfile.write((b"HTTP/1.1 " + early) * 3)
        body(b"image")(handler)

    with http_server(answer) as url:
        assert fetch(url, 1000, POLICY) == b"image"
        assert post(url, b"{}", {}, POLICY).status == 200


def test_a_server_that_never_ends_its_informational_answers_is_given_up() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200)

    with http_server(answer) as url, pytest.raises(UrlAnsweredError, match="103"):
        fetch(url, 1000, POLICY)


def test_webhooks_accept_any_answer() -> None:
    """Receivers that negotiate, as Django REST framework does, answer 406 to a request that accepts images only."""
    heard: list[tuple[str | None, ...]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        heard.append((handler.headers["Accept"], handler.headers["Content-Type"]))
        body(b"", 406 if "*/*" not in str(handler.headers["Accept"]) else 204)(handler)

    with http_server(answer) as url:
        assert post(url, b"{}", {"Content-Type": "application/json"}, POLICY).status == 204
    assert heard == [("*/*", "application/json")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120), ("0", 0), ("", 0), ("-5", 0), ("1.5", 0), ("soon", 0), ("٣", 0), ("9" * 400, float("inf")),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60), ("Wednesday, 21-Oct-26 07:28:00 GMT", 60),
        ("Wed Oct 21 07:28:00 2026", 60), ("Wed, 21 Oct 2026 07:26:00 GMT", 0), ("Wed, 99 Oct 2026 07:28:00 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_of_seconds_or_a_date(text: str, seconds: float) -> None:
    assert retry_after(text, datetime(2026, 10, 21, 7, 27, tzinfo=UTC)) == seconds
