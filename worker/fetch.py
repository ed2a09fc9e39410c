"""Fetches an image_url and posts to a webhook_url, and connects only to addresses that are allowed.

The check runs where the socket is opened. So every request and every redirect is checked, and the socket is connected
to the address that was checked: there is no second DNS lookup, so DNS rebinding is impossible. The Host header, SNI and
certificate verification stay as requests implements them.
"""

import logging
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from upres.core.errors import TooManyBytes, UrlAnsweredError, UrlRefused, UrlUnreachable
from upres.core.settings import is_among
from upres.worker.addresses import Network, refusal_reason

log = logging.getLogger("upres.worker")

TOTAL_SECONDS = 10
"""Time limit in seconds of a whole fetch, with redirects: enough for 20 MB at 16 Mbit/s. So a server that sends slowly
cannot occupy a slot."""
CONNECT_SECONDS = 5
"""Timeout in seconds of one connect."""
MAX_REDIRECTS = 5
PORTS = (80, 443)
CHUNK = 1 << 16
"""Bytes per read of a body."""


class FetchPolicy(NamedTuple):
    """To which networks and hosts a worker may connect for a client."""

    networks: Sequence[Network] = ()
    """Networks that the operator allows although they are not public; any port is allowed there."""
    hosts: Sequence[str] = ()
    """If not empty, only these hosts are allowed; a name with a leading dot allows all hosts below that domain."""


def fetch(url: str, max_bytes: int, policy: FetchPolicy = FetchPolicy(), seconds: float = TOTAL_SECONDS) -> bytes:
    """Return the body at a URL, of at most `max_bytes`, within `seconds`.

    Raises UrlRefused (address not public, port not 80 or 443, host not allowed, not http or https), UrlUnreachable
    (no answer, too slow, too many redirects), UrlAnsweredError (not a 2xx status) or TooManyBytes.
    """
    guard = _Guard(policy, seconds, "image_url")
    host = "the address"
    with _session(guard) as session, guard:
        try:
            for _ in range(MAX_REDIRECTS + 1):
                host = urlsplit(url).hostname or host
                # This loop follows redirects, because requests would read and decompress the body of each redirect.
                with session.get(url, stream=True, timeout=seconds, allow_redirects=False) as response:
                    target = requests.Session().get_redirect_target(response)
                    if target is None:
                        _check_status(response)
                        return _body(response, max_bytes, guard)
                    url = urljoin(url, target)
            raise UrlUnreachable(f"image_url: more than {MAX_REDIRECTS} redirects.")
        except (InvalidURL, InvalidSchema, MissingSchema, ValueError) as error:
            raise UrlRefused("image_url: it leads to an address that is not http or https.") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            if guard.expired:
                raise UrlUnreachable(f"image_url: {host} did not deliver within {seconds:g} seconds.") from error
            raise UrlUnreachable(f"image_url: {host} does not answer ({_reason(error)}).") from error


def post(url: str, body: bytes, headers: dict[str, str], policy: FetchPolicy, seconds: float = TOTAL_SECONDS) -> int:
    """Post a body to a URL within `seconds` and return the HTTP status of the answer, whose body is not read.

    Redirects are not followed. Raises UrlRefused or UrlUnreachable.
    """
    guard = _Guard(policy, seconds, "webhook_url")
    with _session(guard) as session, guard:
        try:
            with session.post(
                url, data=body, headers=headers, stream=True, timeout=seconds, allow_redirects=False
            ) as response:
                return response.status_code
        except (InvalidURL, InvalidSchema, MissingSchema, ValueError) as error:
            raise UrlRefused("webhook_url: it is not http or https.") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            raise UrlUnreachable(f"webhook_url: it does not answer ({_reason(error)}).") from error


class _Guard:
    """Opens the sockets of one request, to allowed addresses only, and shuts them down when the time is up.

    A socket timeout limits the time between two bytes. This limits the total time, including the DNS lookup.
    """

    def __init__(self, policy: FetchPolicy, seconds: float, what: str) -> None:
        self._policy, self._what = policy, what
        self._deadline = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self._sockets: list[socket.socket] = []
        self.expired = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        for sock in self._sockets:
            sock.close()

    def open(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of the host that answers.

        Raises UrlRefused when any of its addresses is not allowed, TimeoutError when the time is up, or OSError.
        """
        self._check_host(host)
        answers = self._resolve(host, port)
        for *_, address in answers:
            self._check(host, str(address[0]), port)
        error: OSError = OSError("no address")
        for family, kind, protocol, _, address in answers:
            self.check_time()
            sock = socket.socket(family, kind, protocol)
            # TLS takes over this socket object. The duplicate descriptor lets `_expire` shut the connection down.
            self._sockets.append(sock.dup())
            sock.settimeout(min(CONNECT_SECONDS, max(0.01, self._deadline - time.monotonic())))
            try:
                sock.connect(address)
            except OSError as failed:
                sock.close()
                error = failed
            else:
                self.check_time()
                return sock
        raise error

    def check_time(self) -> None:
        """Raise TimeoutError when the time is up."""
        if self.expired or time.monotonic() > self._deadline:
            self.expired = True
            raise TimeoutError("time is up")

    def _expire(self) -> None:
        self.expired = True
        for sock in self._sockets:
            with suppress(OSError):  # already closed
                sock.shutdown(socket.SHUT_RDWR)

    def _resolve(self, host: str, port: int) -> list[Any]:
        """Look up all addresses of the host, in a thread, because a DNS lookup that hangs cannot be interrupted."""
        answer: Future[list[Any]] = Future()

        def resolve() -> None:
            try:
                answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=resolve, name="resolver", daemon=True).start()
        try:
            return answer.result(max(0.01, self._deadline - time.monotonic()))
        except TimeoutError:
            self.expired = True
            raise TimeoutError("time is up") from None

    def _check_host(self, host: str) -> None:
        if not is_among(host, self._policy.hosts):
            raise UrlRefused(f"{self._what}: {host} is not one of the hosts that this server reaches.")

    def _check(self, host: str, address: str, port: int) -> None:
        if reason := refusal_reason(address, self._policy.networks):
            log.info("%s: %s is %s: %s", self._what, host, address, reason)  # not for the client
            raise UrlRefused(f"{self._what}: {host} is not a public address.")
        if port not in PORTS and refusal_reason(address) is None:
            raise UrlRefused(f"{self._what}: port {port} is not allowed; use 80 or 443.")


def _session(guard: _Guard) -> requests.Session:
    """Open a session for http and https that uses the guard's sockets, and no proxies, no .netrc and no compression."""

    class PlainConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return guard.open(self.host, int(self.port or 80))

    class TlsConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return guard.open(self.host, int(self.port or 443))

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = TlsConnection

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> None:
            """Return None, so that requests neither follows a redirect nor reads its body."""

    session = Session()
    session.trust_env = False
    session.headers.update({"User-Agent": "upres", "Accept": "image/*", "Accept-Encoding": "identity"})
    session.adapters.clear()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter())
    return session


def _check_status(response: requests.Response) -> None:
    if not response.ok:
        reason = "".join(filter(str.isprintable, response.reason or ""))[:80]
        error = UrlAnsweredError(f"image_url: the server answered {response.status_code} {reason}.")
        error.retryable = response.status_code >= 500 or response.status_code == 429
        raise error


def _body(response: requests.Response, max_bytes: int, guard: _Guard) -> bytes:
    """Read the body without decompressing it. Raises TooManyBytes at the first byte above `max_bytes`."""
    data = bytearray()
    while chunk := response.raw.read(min(CHUNK, max_bytes + 1 - len(data)), decode_content=False):
        data += chunk
        if len(data) > max_bytes:
            raise TooManyBytes.for_limit(max_bytes)
    guard.check_time()  # without a Content-Length, a socket that was shut down looks like the end of the body
    return bytes(data)


def _reason(error: BaseException) -> str:
    """Describe the innermost cause of an error in a few words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
