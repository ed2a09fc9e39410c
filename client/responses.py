"""What a response means: an answer of upres, an error of upres, or of something between the client and upres.

A proxy, a login page, a maintenance page or another program may answer with any status, headers and body. Only what
upres answers passes for success.
"""

from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from upres.client.calls import Call
from upres.client.environment import lasting_cause, proxy_of
from upres.client.errors import RequestRefused, ServerUnreachable, StoreUnreachable
from upres.core.api import Problem

Model = TypeVar("Model", bound=BaseModel)
RETRY_STATUSES = {429, 502, 503, 504}
"""HTTP statuses after which the same request is retried: it may succeed soon."""
NO_ANSWER = (httpx.RequestError, httpx.InvalidURL)
"""What httpx raises when there is no response, or one that it cannot read; InvalidURL for the URL in Location."""
SIGNATURES = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"RIFF",
    b"GIF89a",
    *(b"\xff\x0a", b"\0\0\0\x0cJXL "),
    *(b"II*\0", b"II+\0"),
)
"""The first bytes of the formats of results: PNG, JPEG, WebP, GIF, JPEG XL (two kinds of files), TIFF (two kinds)."""
AVIF = (b"ftypavif", b"ftypavis")
"""The bytes of an AVIF file after the first four, which are a length."""
FOREIGN = "refused"
"""Code of a RequestRefused whose answer is not from upres."""
SHOWN = 200
"""Characters of an address in a message."""


def parsed(model: type[Model], call: Call, response: httpx.Response) -> Model:
    """The answer of upres in a response. Raises ServerUnreachable when the response is not from upres."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        raise stranger(call, response) from None


def store_call(method: str, url: str) -> Call:
    """A request to the object store. Raises ServerUnreachable when the URL is not an http(s) URL."""
    try:
        is_url = httpx.URL(url).scheme in ("http", "https") and bool(httpx.URL(url).host)
    except httpx.InvalidURL:
        is_url = False
    if not is_url:
        raise ServerUnreachable(f"The server gave {url[:SHOWN]!r} as the address of an image, which is no URL.")
    return Call(method, url, to_store=True)


def check_stream(call: Call, response: httpx.Response) -> None:
    """Raise the error for a response that is no event stream; a transport error if a retry may help."""
    if response.status_code in RETRY_STATUSES:
        raise httpx.RemoteProtocolError(f"{response.status_code} {response.reason_phrase}")
    if response.is_error:
        raise refused(call, response)
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_stream = response.status_code == httpx.codes.OK and kind == "text/event-stream"
    if not is_stream and response.status_code != httpx.codes.NO_CONTENT:
        raise stranger(call, response)


class ImageCheck:
    """Checks that what is downloaded is an image file. Raises StoreUnreachable."""

    def __init__(self, call: Call, response: httpx.Response) -> None:
        if response.is_error:
            raise refused(call, response)
        if response.status_code != httpx.codes.OK:
            raise _no_image(f"{response.status_code} {response.reason_phrase}")
        self._kind = response.headers.get("Content-Type", "")
        self._is_checked = False

    def feed(self, piece: bytes) -> bytes:
        """Return the piece of the file; the first one must begin as an image does."""
        if not self._is_checked and not (piece.startswith(SIGNATURES) or piece.startswith(AVIF, 4)):
            raise _no_image(f"a file that is no image ({self._kind or 'of unknown type'})")
        self._is_checked = True
        return piece

    def end(self) -> None:
        """Called after the last piece; an empty file is no image."""
        if not self._is_checked:
            raise _no_image("an empty file")


def _no_image(what: str) -> StoreUnreachable:
    return StoreUnreachable(f"The object store, or something on the way to it, answered with {what}.")


def unreachable(call: Call, error: Exception) -> ServerUnreachable | StoreUnreachable:
    """The exception for a request that got no response; it says why, and names the proxy if there is one."""
    url = httpx.URL(call.url)
    made: ServerUnreachable | StoreUnreachable
    cause, proxy = lasting_cause(url, error), proxy_of(url)
    through = f" through the proxy in {proxy}" if proxy else ""
    if call.to_store:
        made = StoreUnreachable(f"The object store at {url.host} {cause or f'does not answer{through} ({error})'}.")
    else:
        where = f"{url.scheme}://{url.netloc.decode().rpartition('@')[2]}"
        advice = "is the proxy right, or should NO_PROXY name the host?" if proxy else "is upres running there?"
        made = ServerUnreachable(f"{where} {cause}." if cause else f"{where} does not answer{through}; {advice}")
    made.retryable = cause is None
    made.__cause__ = error
    return made


def refused(call: Call, response: httpx.Response) -> RequestRefused | ServerUnreachable | StoreUnreachable:
    """The exception for an unexpected response. Without problem details (RFC 9457) it is not from upres."""
    answer = f"{response.status_code} {response.reason_phrase}"
    if call.to_store or not response.is_error:
        return stranger(call, response)
    try:
        return RequestRefused(Problem.model_validate_json(response.content), retry_after(response))
    except ValidationError:
        pass
    if response.status_code == httpx.codes.NOT_FOUND or response.is_server_error:
        return stranger(call, response)
    detail = f"{_where(response)} answered {answer}; that is not upres, but something on the way to it."
    return RequestRefused(
        Problem(
            type="about:blank",
            title=answer,
            status=response.status_code,
            detail=detail,
            code=FOREIGN,
            retryable=False,
        )
    )


def is_at_limit(response: httpx.Response) -> bool:
    """Whether upres, not a proxy, refused the request because a limit is reached."""
    try:
        return Problem.model_validate_json(response.content).status == httpx.codes.TOO_MANY_REQUESTS
    except ValidationError:
        return False


def is_too_large_for_a_proxy(error: RequestRefused) -> bool:
    """Whether a proxy, not upres, refused the body of a request: nginx takes 1 MB unless it is told otherwise."""
    return error.status == httpx.codes.REQUEST_ENTITY_TOO_LARGE and error.code == FOREIGN


def stranger(call: Call, response: httpx.Response) -> ServerUnreachable | StoreUnreachable:
    """The exception for a response that upres never gives, such as a redirect or a page."""
    answer = f"{response.status_code} {response.reason_phrase}".strip()
    if call.to_store:
        return StoreUnreachable(f"The object store answered {answer}.")
    if response.has_redirect_location:
        to = response.headers["Location"].partition("?")[0][:SHOWN]
        return ServerUnreachable(
            f"{_where(response)} answered {answer}, to {to}; if upres is there, give that address."
        )
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    return ServerUnreachable(f"{_where(response)} answered {answer}{f' ({kind})' if kind else ''}, not as upres does.")


def _where(response: httpx.Response) -> httpx.URL:
    """The URL without its query, which may contain a token."""
    return response.url.copy_with(query=None)


def retry_after(response: httpx.Response) -> float:
    """Seconds of Retry-After (RFC 9110, 10.2.3); 0 when it is missing or a date, which upres never sends."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() else 0.0
