"""Opens the connections of one request, only to addresses that are allowed, and only for a limited time.

The check runs where the socket is opened. So every request and every redirect is checked, and the socket is connected
to the address that was checked: there is no second DNS lookup, so DNS rebinding is impossible. The Host header, SNI and
certificate verification stay as urllib3 implements them.
"""

import http
import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from upres.core.errors import UrlRefused
from upres.core.settings import Settings, is_among
from upres.core.target import Target
from upres.worker.addresses import Network, refusal_reason
from upres.worker.lookup import Lookup

log = logging.getLogger("upres.worker")

CONNECT_SECONDS = 5
"""Timeout in seconds of one connect."""
PORTS = (80, 443)
MAX_INFORMATIONAL = 20
"""Answers like `103 Early Hints` that are skipped before the final answer."""


class FetchPolicy(NamedTuple):
    """To which networks and hosts a worker may connect for a client."""

    networks: Sequence[Network] = ()
    """Networks that the operator allows although they are not public; any port is allowed there."""
    hosts: Sequence[str] = ()
    """If not empty, only these hosts are allowed; a name with a leading dot allows all hosts below that domain."""
    ca_file: Path | None = None
    """A PEM file with certificate authorities that are trusted in addition to certifi's."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The policy of a deployment."""
        return cls(settings.fetch_private_networks, settings.fetch_hosts, settings.ca_file)


PUBLIC = FetchPolicy()
"""All public addresses, and no others."""


class Guard:
    """Opens the sockets of one request, to allowed addresses only, and shuts them down when the time is up.

    `what` is the field that contains the URL, for messages. A socket timeout limits the time between two bytes. This
    limits the total time, including the DNS lookup. `admit` gets each address before it is connected to, and returns
    the seconds that are left from then on, at most; what it raises ends the request.
    """

    def __init__(
        self, policy: FetchPolicy, seconds: float, what: str, admit: Callable[[str], float] | None = None
    ) -> None:
        self.what, self.seconds = what, seconds
        self._policy, self._admit = policy, admit
        self._deadline = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self.abort)
        self._timer.daemon = True
        self._sockets: list[socket.socket] = []
        self._lookup: Lookup | None = None
        self.expired = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        for sock in self._sockets:
            sock.close()

    def connection(self, target: Target) -> HTTPConnection:
        """Return a connection to a target; it opens its socket with `open`, and uses no proxy."""
        made: _Plain | _Tls
        if target.scheme == "https":
            context = _tls(self._policy.ca_file)
            made = _Tls(target.host, target.port, timeout=self.seconds, ssl_context=context)
        else:
            made = _Plain(target.host, target.port, timeout=self.seconds)
        made.guard = self
        return made

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
            if self._admit:
                self._limit(self._admit(str(address[0])))
            sock = socket.socket(family, kind, protocol)
            # TLS takes over this socket object. The duplicate descriptor lets `abort` shut the connection down.
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

    def _limit(self, seconds: float) -> None:
        """Shorten the time that is left to `seconds`, if it is longer."""
        if (left := self._deadline - time.monotonic()) > seconds:
            self.seconds -= left - seconds
            self._deadline -= left - seconds
            self._timer.cancel()
            self._timer = threading.Timer(seconds, self.abort)
            self._timer.daemon = True
            self._timer.start()

    def abort(self) -> None:
        """End the request at once, from another thread, as if its time were up: its sockets, or its DNS lookup."""
        self.expired = True
        if self._lookup:
            self._lookup.abort()
        for sock in self._sockets:
            with suppress(OSError):  # already closed
                sock.shutdown(socket.SHUT_RDWR)

    def _resolve(self, host: str, port: int) -> list[Any]:
        """Look up all addresses of the host in the time that is left. Raises socket.gaierror."""
        self._lookup = Lookup(host, port)
        self.check_time()
        try:
            return self._lookup.wait(max(0.01, self._deadline - time.monotonic()))
        finally:
            self.expired = self.expired or time.monotonic() > self._deadline

    def _check_host(self, host: str) -> None:
        if not is_among(host, self._policy.hosts):
            raise UrlRefused(f"{self.what}: {host} is not one of the hosts that this server reaches.")

    def _check(self, host: str, address: str, port: int) -> None:
        if reason := refusal_reason(address, self._policy.networks):
            log.info("%s: %s is %s: %s", self.what, host, address, reason)  # not for the client
            raise UrlRefused(f"{self.what}: {host} is not a public address.")
        if port not in PORTS and refusal_reason(address) is None:
            raise UrlRefused(f"{self.what}: port {port} is not allowed; use 80 or 443.")


@cache
def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Make the TLS settings of all connections. They are kept, because reading all certificates takes 20 ms."""
    context = create_urllib3_context()
    for file in (certifi.where(), ca_file):
        if file:
            context.load_verify_locations(file)
    return context


class _FinalResponse(http.client.HTTPResponse):
    """An answer, without the informational ones before it (RFC 9110, 15.2); http.client skips only `100 Continue`."""

    def begin(self) -> None:
        super().begin()
        for _ in range(MAX_INFORMATIONAL):
            if not 100 <= self.status < 200 or self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return
            self.headers = self.msg = None  # type: ignore[assignment]  # http.client reads the next head then
            super().begin()


class _Plain(HTTPConnection):
    response_class = _FinalResponse
    guard: Guard

    def _new_conn(self) -> socket.socket:
        return self.guard.open(self.host, int(self.port or 80))


class _Tls(HTTPSConnection):
    response_class = _FinalResponse
    guard: Guard

    def _new_conn(self) -> socket.socket:
        return self.guard.open(self.host, int(self.port or 443))
