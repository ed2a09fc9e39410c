"""Access control: a caller is identified by an API key, or by a token for one job; with open access all are equal."""

import base64
import hmac
import time
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from upres.core import api_keys, keys
from upres.core.api_keys import ApiKey, Pace
from upres.core.errors import AccessUndecided, Unauthorized
from upres.core.settings import Settings
from upres.function.services import Services

EXPIRY_BYTES = 6
"""Bytes of a token that hold its expiry time in seconds since 1970; 6 bytes are exactly 8 base64 digits."""
TOKEN_SECONDS = keys.DAY
"""Lifetime in seconds of the token in an events_url: one day."""


FORWARDED = {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}
"""Headers that proxies add to requests (RFC 7239, RFC 9110)."""


class Caller(NamedTuple):
    """The client that sent a request: its API key, or None when the server needs no keys."""

    key: ApiKey | None = None

    @property
    def owner(self) -> str | None:
        """The id of the API key, which the caller's jobs store as their owner; None without a key."""
        return self.key.key_id if self.key else None


ANYBODY = Caller()


def caller(services: Services, request: HTTPConnection, pace: Pace | None = "reads") -> Caller:
    """Identify the caller of a request by its headers, and count the request for a pace of the API key.

    Without a pace nothing is counted. Raises Unauthorized without a valid API key, where keys are needed, and
    RateLimited. Raises AccessUndecided when UPRES_ACCESS is not set and the request does not come from this machine.
    """
    match services.settings.access:
        case "open":
            return ANYBODY
        case "keys":
            return holder(services, bearer(request), pace)
    _check_local(services.settings, request)
    return ANYBODY


def bearer(request: HTTPConnection) -> str:
    """Return the text of the API key in a request's headers, valid or not; "" without one (RFC 6750, section 2.1)."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def holder(services: Services, text: str, pace: Pace | None) -> Caller:
    """Return the caller with this API key, after counting its request. Raises Unauthorized or RateLimited."""
    key = api_keys.authenticate(services.redis, text)
    if key is None:
        raise Unauthorized("Send an API key of this server: Authorization: Bearer upres_….")
    if pace:
        api_keys.count_request(services.redis, key, pace)
    return Caller(key)


def _check_local(settings: Settings, request: HTTPConnection) -> None:
    """Allow only this machine, for when UPRES_ACCESS is not set.

    Raises AccessUndecided for requests from other machines, for those that look as if a proxy had forwarded them, and
    for those of web pages from other sites in a browser on this machine, unless UPRES_CORS_ORIGINS names the site.
    """
    if not _is_local(request):
        raise AccessUndecided(
            "Other machines can reach this server, but UPRES_ACCESS is not set: "
            "set it to keys, or to open for all clients."
        )
    if request.scope.get("http_version") == "1.0":
        raise AccessUndecided(
            "UPRES_ACCESS is not set on this server, so it does not serve HTTP/1.0, which proxies use by default: "
            "set UPRES_ACCESS to keys, or to open for all clients."
        )
    # DNS rebinding: the host name of a malicious page may resolve to this machine; the Host header then has that name.
    host, origin = "//" + request.headers.get("Host", ""), request.headers.get("Origin")
    if not _is_this_machine(host) or not (
        origin is None or _is_this_machine(origin) or origin in settings.cors_origins
    ):
        raise AccessUndecided(
            "UPRES_ACCESS is not set on this server, so web pages of other sites may not use it: "
            "name their origins in UPRES_CORS_ORIGINS, or set UPRES_ACCESS."
        )


def _is_this_machine(address: str) -> bool:
    try:
        name = urlsplit(address).hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _is_local(request: HTTPConnection) -> bool:
    """Whether the request came to a loopback address of this machine, and not through a proxy."""
    if "aws.event" in request.scope or FORWARDED & set(request.headers):
        return False
    host = (request.scope.get("server") or ("",))[0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def make_token(secret: bytes, job_id: str, seconds: int = TOKEN_SECONDS) -> str:
    """Make a token that allows reading one job for `seconds`, signed with HMAC-SHA256 (RFC 2104).

    It is part of the URL, because an EventSource cannot send headers.
    """
    return _token(secret, job_id, int(time.time() + seconds).to_bytes(EXPIRY_BYTES))


def check_token(secret: bytes, job_id: str, token: str) -> bool:
    """Whether the token is valid for this job and has not expired. Only one encoding of a token is accepted."""
    try:
        expires = base64.urlsafe_b64decode(token[:8].encode("ascii"))[:EXPIRY_BYTES]
    except ValueError:
        return False
    right = hmac.compare_digest(_token(secret, job_id, expires).encode(), token.encode(errors="replace"))
    return right and int.from_bytes(expires) > time.time()


def _token(secret: bytes, job_id: str, expires: bytes) -> str:
    signature = hmac.digest(secret, job_id.encode() + expires, "sha256")
    return base64.urlsafe_b64encode(expires + signature).decode().rstrip("=")
