"""Downloads a published file of weights: checked by size and SHA-256, continued after a broken connection."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import httpx

from upres.client.calls import PIECE_BYTES
from upres.client.environment import lasting_cause, proxy_of, setup_error, ssl_context
from upres.client.responses import NO_ANSWER, RETRY_STATUSES
from upres.core.errors import ModelError, UpresError, UrlAnsweredError, UrlUnreachable

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt."""
TIMEOUT = httpx.Timeout(30, connect=10)
LONGEST_SECONDS = 7200
"""A download that takes longer is given up."""

OTHER_RANGE = (httpx.codes.PARTIAL_CONTENT, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE)
"""Statuses of answers to a range that was not sent as it was asked for; the next attempt asks for the whole file."""

OnBytes = Callable[[int], None]
"""Called with the number of bytes that are there."""


class File(NamedTuple):
    """A published file: its address, its size in bytes and the SHA-256 of its bytes."""

    address: str
    size: int
    sha256: str


class _Interrupted(Exception):
    """The answer broke off, or the server is busy: another attempt may succeed. `error` is for the user."""

    def __init__(self, error: UpresError) -> None:
        self.error = error


def download(file: File, to: Path, ca_file: Path | None, on_bytes: OnBytes) -> None:
    """Download a file to the path `to`. Certificates in `ca_file` are trusted besides the usual ones.

    Redirects are followed; proxies come from the environment. Raises UrlUnreachable, UrlAnsweredError, ModelError when
    it is another file than the named one, ClientSetupError when proxies or certificates are set up wrong, OSError when
    `to` cannot be written. After an error `to` may hold a part of the file.
    """
    until = time.monotonic() + LONGEST_SECONDS
    with _client(ca_file) as client, to.open("w+b") as target:
        for pause in (*PAUSES, None):
            try:
                _receive(client, file, target, lambda count: _tell(file, count, until, on_bytes))
                break
            except _Interrupted as interrupted:
                if pause is None:
                    raise interrupted.error from interrupted
                time.sleep(pause)
        target.flush()
        target.seek(0)
        if (found := hashlib.file_digest(target, "sha256").hexdigest()) != file.sha256:
            raise _other(file, f"its SHA-256 is {found}, not {file.sha256}")


def _client(ca_file: Path | None) -> httpx.Client:
    """Raises ClientSetupError."""
    ssl_context(True)
    try:
        context = httpx.create_ssl_context()
        if ca_file:
            context.load_verify_locations(ca_file)
        headers = {"Accept-Encoding": "identity", "User-Agent": "upres"}
        return httpx.Client(verify=context, headers=headers, timeout=TIMEOUT, follow_redirects=True)
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise setup_error(error) from error


def _receive(client: httpx.Client, file: File, target: BinaryIO, on_bytes: OnBytes) -> None:
    """Append the rest of the file to `target`. Raises _Interrupted, UrlAnsweredError, UrlUnreachable or ModelError."""
    have = target.tell()
    wanted = {"Range": f"bytes={have}-"} if have else {}
    try:
        with client.stream("GET", file.address, headers=wanted) as response:
            if not _is_rest(response, have):
                target.seek(0)
                target.truncate()
                _check(file, response, bool(wanted))
            for piece in response.iter_raw(PIECE_BYTES):
                if target.tell() + len(piece) > file.size:
                    raise _other(file, f"it has more than {file.size} bytes")
                target.write(piece)
                on_bytes(target.tell())
    except NO_ANSWER as error:
        _unanswered(file, error)
    if target.tell() < file.size:
        raise _Interrupted(UrlUnreachable(f"{file.address} sends only {target.tell()} of {file.size} bytes."))


def _is_rest(response: httpx.Response, have: int) -> bool:
    """Whether an answer is the rest of the file from `have` (RFC 9110, 14.4)."""
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    return have > 0 and response.status_code == httpx.codes.PARTIAL_CONTENT and begins


def _check(file: File, response: httpx.Response, has_range: bool) -> None:
    """Raise the error for an answer that is not the whole file."""
    answer = f"{response.status_code} {response.reason_phrase}".strip()
    if response.status_code in RETRY_STATUSES or (has_range and response.status_code in OTHER_RANGE):
        raise _Interrupted(UrlUnreachable(f"{file.address} answers {answer}; try again later."))
    if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        raise UrlAnsweredError(f"{file.address} is not there any more ({answer}); its author may have moved it.")
    if response.status_code != httpx.codes.OK:
        raise UrlAnsweredError(f"{file.address} answers {answer}, not with the file.")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        page = "a web page (text/html), not with the file; is a login page or a proxy in the way?"
        raise UrlAnsweredError(f"{file.address} answers with {page}")
    length = response.headers.get("Content-Length", str(file.size))
    if length != str(file.size):
        raise _other(file, f"it has {length} bytes, not {file.size}")


def _unanswered(file: File, error: Exception) -> NoReturn:
    """Raise the error for a request that got no answer, or only a part of it."""
    url = httpx.URL(file.address)
    cause, proxy = lasting_cause(url, error, "name its authority in UPRES_CA_FILE"), proxy_of(url)
    if cause or isinstance(error, httpx.TooManyRedirects | httpx.InvalidURL | httpx.UnsupportedProtocol):
        raise UrlUnreachable(f"{url.host} {cause or f'cannot be asked: {error}'}.") from error
    through = f" through the proxy in {proxy}" if proxy else ""
    why = str(error) or type(error).__name__
    raise _Interrupted(UrlUnreachable(f"{file.address} does not answer{through} ({why}).")) from error


def _tell(file: File, count: int, until: float, on_bytes: OnBytes) -> None:
    """Call `on_bytes`. Raises UrlUnreachable after the time `until`."""
    if time.monotonic() > until:
        raise UrlUnreachable(f"{file.address} is too slow: {count} of {file.size} bytes in {LONGEST_SECONDS} s.")
    on_bytes(count)


def _other(file: File, what: str) -> ModelError:
    return ModelError(f"{file.address}: the file is not the one that the gallery names: {what}.")
