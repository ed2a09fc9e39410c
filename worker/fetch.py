"""Fetches an image_url and posts to a webhook_url, and connects only to addresses that are allowed (guard.py)."""

import http.client
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from upres.core.errors import (
    FetchError,
    NotAnImage,
    TooManyBytes,
    UrlAnsweredError,
    UrlRefused,
    UrlUnreachable,
)
from upres.core.foreign_text import printable
from upres.core.target import follow, parse
from upres.worker.guard import PUBLIC, FetchPolicy, Guard

TOTAL_SECONDS = 10
"""Time limit in seconds of a whole fetch, with redirects: enough for 20 MB at 16 Mbit/s. So a server that sends slowly
cannot occupy a slot."""
MAX_REDIRECTS = 5
CHUNK = 1 << 16
"""Bytes per read of a body."""
HEADERS = {"User-Agent": "upres", "Accept": "image/*", "Accept-Encoding": "identity"}
REDIRECTS = (301, 302, 303, 307, 308)
RETRYABLE = (408, 425, 429)
"""Statuses below 500 after which the same request may succeed later (RFC 9110, RFC 8470, RFC 6585)."""
MAX_SAID = 100
"""Longest text in characters that a message quotes from a server."""
COMPRESSIONS = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress")
HTML = (b"<!doctype html", b"<html")


class Answer(NamedTuple):
    """The answer to a webhook: its status, and its header Retry-After ("" without one)."""

    status: int
    retry_after: str


def fetch(
    url: str,
    max_bytes: int,
    policy: FetchPolicy = PUBLIC,
    seconds: float = TOTAL_SECONDS,
    on_start: Callable[[Callable[[], None]], object] = id,
) -> bytes:
    """Return the body at a URL, of at most `max_bytes`, within `seconds`.

    `on_start` gets a function that ends the fetch at once, from any thread, with UrlUnreachable.

    Raises UrlRefused (address not public, port not 80 or 443, host not allowed, not http or https), UrlUnreachable
    (no answer, too slow, too many redirects, certificate not trusted), UrlAnsweredError (not a 2xx status, or a
    compressed body), NotAnImage (an empty body or a web page) or TooManyBytes.
    """
    guard = Guard(policy, seconds, "image_url")
    on_start(guard.abort)
    with guard:
        for _ in range(MAX_REDIRECTS + 1):
            with _exchange(guard, "GET", url, HEADERS) as response:
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or location is None:
                    _check_head(response)
                    body = _body(response, max_bytes, guard)
                    _check_body(response, body)
                    return body
                url = follow(url, location)
    raise UrlUnreachable(f"image_url: more than {MAX_REDIRECTS} redirects.")


def post(
    url: str, body: bytes, headers: dict[str, str], policy: FetchPolicy, admit: Callable[[str], float] | None = None
) -> Answer:
    """Post a body to a URL within TOTAL_SECONDS, and return the answer, whose body is not read.

    `admit` is Guard's. Redirects are not followed. Raises UrlRefused, UrlUnreachable, or what `admit` raises.
    """
    guard = Guard(policy, TOTAL_SECONDS, "webhook_url", admit)
    with guard, _exchange(guard, "POST", url, {"Accept": "*/*", **headers}, body) as response:
        return Answer(response.status, response.headers.get("Retry-After", ""))


@contextmanager
def _exchange(
    guard: Guard, method: str, url: str, headers: dict[str, str], body: bytes | None = None
) -> Iterator[BaseHTTPResponse]:
    """Send one request, and give the answer for the block. Raises UrlRefused or UrlUnreachable, also for the block."""
    host = "the address"
    try:
        target = parse(url)
        host = target.host
        with closing(guard.connection(target)) as connection:
            connection.request(
                method,
                target.path,
                body,
                {**headers, **target.headers},
                preload_content=False,
                decode_content=False,
            )
            with closing(connection.getresponse()) as response:
                yield response
    except (HTTPError, http.client.HTTPException, OSError) as error:
        raise _unreachable(guard, host, error) from error
    except ValueError as error:  # UnicodeError is one: a name that cannot be looked up
        raise UrlRefused(f"{guard.what}: it leads to an address that is not http or https.") from error


def _unreachable(guard: Guard, host: str, error: BaseException) -> FetchError:
    """Make the error for a request that failed."""
    if guard.expired:
        return UrlUnreachable(f"{guard.what}: {host} did not deliver within {guard.seconds:.3g} seconds.")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = printable(error.verify_message, MAX_SAID).rstrip(".")
        untrusted = UrlUnreachable(f"{guard.what}: the TLS certificate of {host} is not trusted ({reason}).")
        untrusted.retryable = False
        return untrusted
    return UrlUnreachable(f"{guard.what}: {host} does not answer ({_reason(error)}).")


def _check_head(response: BaseHTTPResponse) -> None:
    """Raise UrlAnsweredError unless the answer is a success, and not compressed."""
    reason = printable(response.reason or "", MAX_SAID)
    answered = f"image_url: the server answered {response.status} {reason}".rstrip()
    if not 200 <= response.status < 300:
        error = UrlAnsweredError(answered + (" without a Location." if response.status in REDIRECTS else "."))
        error.retryable = response.status >= 500 or response.status in RETRYABLE
        raise error
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in COMPRESSIONS:
        raise UrlAnsweredError(
            f"image_url: the server sent the file compressed ({encoding}), although upres asks for it as it is "
            "(Accept-Encoding: identity)."
        )


def _body(response: BaseHTTPResponse, max_bytes: int, guard: Guard) -> bytes:
    """Read the body without decompressing it. Raises TooManyBytes at the first byte above `max_bytes`."""
    data = bytearray()
    while chunk := response.read(min(CHUNK, max_bytes + 1 - len(data)), decode_content=False):
        data += chunk
        if len(data) > max_bytes:
            raise TooManyBytes.for_limit(max_bytes)
    guard.check_time()  # without a Content-Length, a socket that was shut down looks like the end of the body
    return bytes(data)


def _check_body(response: BaseHTTPResponse, body: bytes) -> None:
    """Raise NotAnImage for what servers send instead of an image: nothing, or a web page with status 200."""
    if not body:
        raise NotAnImage(f"image_url: the server answered {response.status} with an empty body, not with an image.")
    begin = body[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    named = response.headers.get("Content-Type", "").lower().startswith("text/html")
    if begin.startswith(HTML) or (named and begin.startswith(b"<")):
        raise NotAnImage(
            "image_url: it leads to a web page (HTML), not to an image file; give the address of the file itself."
        )


def _reason(error: BaseException) -> str:
    """Describe the innermost cause of an error in a few words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return printable(str(error), MAX_SAID) or type(error).__name__
