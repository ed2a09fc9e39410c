"""image_url → bytes, connecting to nothing but checked addresses.

The check sits where the socket is opened: every request and every redirect passes it, the address
that was checked is the one connected to (no second resolution to rebind), and Host, SNI and
certificate verification stay as requests does them.
"""

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from core.errors import TooManyBytes, UrlAnsweredError, UrlRefused, UrlUnreachable
from worker.addresses import Network, why_refused

TOTAL_SECONDS = 10
"""For the whole fetch, redirects included: 20 MB at 16 Mbit/s. Whoever drips holds a slot no longer."""
CONNECT_SECONDS = 5
MAX_REDIRECTS = 5
PORTS = (80, 443)
CHUNK = 1 << 16


class Reach(NamedTuple):
    """Where an image_url may lead."""

    networks: Sequence[Network] = ()
    """Networks that the operator opened although they are not public; any port is fine there."""
    hosts: Sequence[str] = ()
    """When there are any, only these hosts, or with a leading dot all below a domain."""


def fetch(url: str, max_bytes: int, reach: Reach = Reach(), seconds: float = TOTAL_SECONDS) -> bytes:
    """The body under a URL, at most `max_bytes`, within `seconds`.

    Raises UrlRefused (address not public, port not 80 or 443, host not allowed, no http), UrlUnreachable
    (no answer, too slow, too many redirects), UrlAnsweredError (not a 2xx status) or TooManyBytes.
    """
    guard = _Guard(reach, seconds)
    host = urlsplit(url).hostname
    with _session(guard) as session, guard:
        try:
            with session.get(url, stream=True, timeout=seconds) as response:
                _check_status(response)
                body = _body(response, max_bytes)
            guard.check_time()  # a body without a length ends silently when its socket is shut
            return body
        except (InvalidURL, InvalidSchema, MissingSchema, UnicodeError) as error:
            raise UrlRefused(f"image_url: it leads to an address that is not http or https ({error}).") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            if guard.expired:
                raise UrlUnreachable(f"image_url: {host} did not deliver within {seconds:g} seconds.") from error
            raise UrlUnreachable(f"image_url: {host} does not answer ({_reason(error)}).") from error


class _Guard:
    """Opens the sockets of one fetch, to checked addresses only, and shuts them all when time is up.

    Socket timeouts count between bytes; this counts in total, the resolver's time included.
    """

    def __init__(self, reach: Reach, seconds: float) -> None:
        self._reach = reach
        self._deadline = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self._sockets: list[socket.socket] = []
        self.expired = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()

    def open(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of the host that answers; refuse if any of them is not public."""
        self._check_host(host)
        answers = self._resolve(host, port)
        for *_, address in answers:
            self._check(host, str(address[0]), port)
        error: OSError = OSError("no address")
        for family, kind, protocol, _, address in answers:
            self.check_time()
            sock = socket.socket(family, kind, protocol)
            self._sockets.append(sock)
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
        """Raise TimeoutError when time is up."""
        if self.expired or time.monotonic() > self._deadline:
            self.expired = True
            raise TimeoutError("time is up")

    def _expire(self) -> None:
        self.expired = True
        for sock in self._sockets:
            with suppress(OSError):  # already closed
                sock.shutdown(socket.SHUT_RDWR)

    def _resolve(self, host: str, port: int) -> list[Any]:
        """All addresses of the host. The resolver cannot be interrupted, so it is left alone when time is up."""
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
        name = host.lower().rstrip(".")
        hosts = self._reach.hosts
        if hosts and not any(name == one or (one.startswith(".") and name.endswith(one)) for one in hosts):
            raise UrlRefused(f"image_url: images may not be fetched from {host}; upload the image instead.")

    def _check(self, host: str, address: str, port: int) -> None:
        if reason := why_refused(address, self._reach.networks):
            name = host if host == address else f"{host} ({address})"
            raise UrlRefused(f"image_url: {name} is not a public address: {reason}.")
        if port not in PORTS and why_refused(address) is None:
            raise UrlRefused(f"image_url: port {port} is not allowed; use 80 or 443.")


def _session(guard: _Guard) -> requests.Session:
    """A session that knows http and https, no proxies, no cookies of others, no compression to bomb with."""

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

    session = requests.Session()
    session.trust_env = False
    session.max_redirects = MAX_REDIRECTS
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


def _body(response: requests.Response, max_bytes: int) -> bytes:
    """Read raw, without decoding, and stop at the first byte too many."""
    data = bytearray()
    while chunk := response.raw.read(min(CHUNK, max_bytes + 1 - len(data)), decode_content=False):
        data += chunk
        if len(data) > max_bytes:
            raise TooManyBytes(f"The image file is larger than {max_bytes / 1e6:g} MB; send a smaller file.")
    return bytes(data)


def _reason(error: BaseException) -> str:
    """The innermost cause, in a few words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
