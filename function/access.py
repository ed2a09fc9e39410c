"""Who asks: an API key, a token for one job's events, or, where everybody may, anybody."""

import base64
import hmac
import time
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from upres.core import api_keys, keys
from upres.core.api_keys import ApiKey
from upres.core.errors import AccessUndecided, Unauthorized
from upres.core.settings import Settings
from upres.function.services import Services

EXPIRY_BYTES = 6
"""Seconds since 1970, in whole base64 digits."""
TOKEN_SECONDS = keys.DAY
"""How long an events_url works without a key."""


class Caller(NamedTuple):
    """Whoever asks. `owner` is what their jobs remember; None where everybody is the same."""

    key: ApiKey | None = None

    @property
    def owner(self) -> str | None:
        """The id of the key."""
        return self.key.key_id if self.key else None


ANYBODY = Caller()


def caller(services: Services, request: HTTPConnection) -> Caller:
    """Whoever sent the request. Raises Unauthorized, or AccessUndecided where nobody said who may."""
    match services.settings.access:
        case "open":
            return ANYBODY
        case "keys":
            scheme, _, text = request.headers.get("Authorization", "").partition(" ")
            return holder(services, text.strip() if scheme.lower() == "bearer" else "")
    _check_untold(services.settings, request)
    return ANYBODY


def holder(services: Services, text: str) -> Caller:
    """Whoever has this API key. Raises Unauthorized when it is none."""
    key = api_keys.find(services.redis, text)
    if key is None:
        raise Unauthorized("Send an API key of this server: Authorization: Bearer upres_….")
    return Caller(key)


def _check_untold(settings: Settings, request: HTTPConnection) -> None:
    """Where nobody said who may: this machine may, and no page that a browser on it has loaded from elsewhere.

    Raises AccessUndecided.
    """
    if not _is_local(request):
        raise AccessUndecided(
            "This server can be reached from outside and was not told who may use it: "
            "set UPRES_ACCESS to keys, or to open for everybody."
        )
    # The Host is foreign where a page's name was made to lead here (DNS rebinding).
    host, origin = "//" + request.headers.get("Host", ""), request.headers.get("Origin")
    if not _is_this_machine(host) or not (
        origin is None or _is_this_machine(origin) or origin in settings.cors_origins
    ):
        raise AccessUndecided(
            "This server was not told who may use it, and serves no pages from elsewhere: "
            "name them in UPRES_CORS_ORIGINS, or set UPRES_ACCESS."
        )


def _is_this_machine(address: str) -> bool:
    try:
        name = urlsplit(address).hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _is_local(request: HTTPConnection) -> bool:
    """Whether the request came, without a proxy, to an address that only this machine reaches."""
    if "aws.event" in request.scope or {"x-forwarded-for", "forwarded"} & set(request.headers):
        return False
    host = (request.scope.get("server") or ("",))[0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def make_token(secret: bytes, job_id: str, seconds: int = TOKEN_SECONDS) -> str:
    """A token that lets an EventSource, which can send no headers, follow one job: HMAC-SHA256 (RFC 2104)."""
    return _token(secret, job_id, int(time.time() + seconds).to_bytes(EXPIRY_BYTES))


def check_token(secret: bytes, job_id: str, token: str) -> bool:
    """Whether the token is for this job, and still good. There is one spelling of each token."""
    try:
        expires = base64.urlsafe_b64decode(token[:8].encode("ascii"))[:EXPIRY_BYTES]
    except ValueError:
        return False
    right = hmac.compare_digest(_token(secret, job_id, expires).encode(), token.encode(errors="replace"))
    return right and int.from_bytes(expires) > time.time()


def _token(secret: bytes, job_id: str, expires: bytes) -> str:
    signature = hmac.digest(secret, job_id.encode() + expires, "sha256")
    return base64.urlsafe_b64encode(expires + signature).decode().rstrip("=")
