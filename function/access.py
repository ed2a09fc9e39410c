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
from upres.core.errors import AccessUndecided, ForeignPage, Unauthorized
from upres.core.settings import Settings
from upres.core.tolerance import or_none
from upres.function.services import Services

EXPIRY_BYTES = 6
"""Bytes of a token that hold its expiry time in seconds since 1970."""
KEY_BYTES = 4
"""Bytes of a token after these that hold the id of its API key. With a signature of 32 bytes these are 42 bytes, which
are exactly 56 base64 digits."""
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


class Permit(NamedTuple):
    """What allows a request to read the jobs of an owner: an API key, or a token of one of its jobs."""

    owner: str | None = None
    """Id of the API key; None on a server that needs no keys."""
    secret: bytes | None = None
    """The secret that signed the token; None without a token."""


def caller(services: Services, request: HTTPConnection, pace: Pace | None = "reads") -> Caller:
    """Identify the caller of a request by its headers, and count the request for a pace of the API key.

    Without a pace nothing is counted. Raises Unauthorized without a valid API key, where keys are needed, and
    RateLimited. Raises AccessUndecided when UPRES_ACCESS is not
    set and the request does not come from this machine. Raises ForeignPage where no keys are needed and the request
    comes from a web page of another site.
    """
    match services.settings.access:
        case "open":
            _check_page(services.settings, request)
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


def _check_page(settings: Settings, request: HTTPConnection) -> None:
    """Refuse requests of web pages of other sites, where being in the network is the only credential.

    Browsers send Origin with each request of a page that changes something, and with each that may be read; the page
    cannot change it, nor the headers with which it is compared. Raises ForeignPage.
    """
    origin, allowed = request.headers.get("Origin"), settings.allowed_origins
    if origin is None or "*" in allowed or origin in allowed:
        return
    own = {request.headers.get("Host"), request.headers.get("X-Forwarded-Host"), _authority(settings.public_url)}
    if not _authority(origin) or _authority(origin) not in own:
        raise ForeignPage(
            "This server needs no API key, so web pages of other sites may not use it: name their origins in "
            "UPRES_CORS_ORIGINS, or set UPRES_ACCESS to keys. If this is its own page, a proxy hides the server's "
            "address: set UPRES_PUBLIC_URL."
        )


def _authority(url: str) -> str:
    """Host and port of a URL; nothing if it has none."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


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
        origin is None or _is_this_machine(origin) or origin in settings.allowed_origins
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


def original_of(job_id: str) -> str:
    """What a token is signed for that allows reading nothing of a job but its original."""
    return f"{job_id}/original"


def reader(
    services: Services, request: HTTPConnection, job_id: str, pace: Pace | None = "reads", part: str | None = None
) -> Permit:
    """Return what allows the request to read a job, or a `part` of it: its token if it has one, else its API key.

    The request is counted for a pace of the API key; when it has a token, or without a pace, for the one of links
    (link_pace.py). Secret and API key are read from Redis each time: a token dies with its key, and with the secret.
    Raises what `caller` raises, or redis-py's errors.
    """
    token = request.query_params.get("token")
    if token is None:
        who = caller(services, request, pace)
        if who.key and pace is None:
            services.links.count(who.key)
        return Permit(who.owner)
    key_id = _named_key(token)
    with services.redis.pipeline(transaction=False) as pipeline:
        pipeline.get(keys.JOB_SIGNING_KEY)
        pipeline.hget(keys.API_KEYS, key_id)
        secret, key = pipeline.execute()
    if not (secret and key and any(check_token(secret, what, token) for what in (job_id, part) if what)):
        raise Unauthorized("The token in this address is invalid or has expired; use an API key instead of the token.")
    if known := or_none(ApiKey, key):
        services.links.count(known)
    return Permit(key_id, secret)


def make_token(secret: bytes, job_id: str, key_id: str, seconds: int = TOKEN_SECONDS) -> str:
    """Make a token that allows reading one job, or a part of one, for `seconds`, signed with HMAC-SHA256 (RFC 2104).

    It is part of the URL, because an EventSource cannot send headers. It names the API key of the job, and is valid
    only while that key exists.
    """
    return _token(secret, job_id, int(time.time() + seconds).to_bytes(EXPIRY_BYTES) + bytes.fromhex(key_id))


def check_token(secret: bytes, job_id: str, token: str) -> bool:
    """Whether the token is signed for this job and has not expired. Only one encoding of a token is accepted."""
    head = _head(token)
    right = hmac.compare_digest(_token(secret, job_id, head).encode(), token.encode(errors="replace"))
    return right and int.from_bytes(head[:EXPIRY_BYTES]) > time.time()


def _named_key(token: str) -> str:
    """The id of the API key that a token names, eight hexadecimal digits; the signature is not checked."""
    return _head(token)[EXPIRY_BYTES:].hex().zfill(2 * KEY_BYTES)


def _head(token: str) -> bytes:
    """Expiry time and API key of a token; nothing if it has another form."""
    try:
        return base64.urlsafe_b64decode(token.encode("ascii"))[: EXPIRY_BYTES + KEY_BYTES]
    except ValueError:
        return b""


def _token(secret: bytes, job_id: str, head: bytes) -> str:
    signature = hmac.digest(secret, job_id.encode() + head, "sha256")
    return base64.urlsafe_b64encode(head + signature).decode()
