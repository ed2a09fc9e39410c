"""Who may submit: API keys, kept in Redis as digests only, each with its limits.

A key as people have it is `upres_ID_SECRET`. The secret has 256 random bits, so its SHA-256 needs no salt and
no slow hash; the id is no secret, and is what jobs remember as their owner.
"""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Any, cast

from pydantic import Field
from redis import Redis

from upres.core import keys
from upres.core.errors import KeyNotFound, LimitReached, QuotaExceeded, RateLimited, TooManyJobs
from upres.core.leases import Lease
from upres.core.schema import TolerantModel, now
from upres.core.script import call

_TEXT = re.compile(r"upres_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


class ApiKey(TolerantModel):
    """One of them, without its secret."""

    key_id: str = Field(description="Eight hexadecimal digits.")
    name: str = Field(description="Whose it is, for people.")
    digest: str = Field(description="SHA-256 of the secret.")
    created_at: datetime = Field(description="UTC.")
    requests_per_minute: int = Field(120, ge=1, description="Submissions; as many may come at once.")
    jobs_at_once: int = Field(100, ge=1, description="Jobs that have not ended.")
    megapixels_per_day: float = Field(50_000, gt=0, description="Pixels of results in 24 hours.")


def create(connection: Redis, name: str, **limits: Any) -> tuple[ApiKey, str]:
    """A new key, and its text, which is never seen again. Raises pydantic's ValidationError for odd limits."""
    key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    key = ApiKey(key_id=key_id, name=name, digest=_digest(secret), created_at=now(), **limits)
    connection.hset(keys.API_KEYS, key_id, key.model_dump_json())
    return key, f"upres_{key_id}_{secret}"


def find(connection: Redis, text: str) -> ApiKey | None:
    """The key that somebody presents; None when it is none of ours. Takes as long for any secret."""
    match = _TEXT.fullmatch(text)
    if not match:
        return None
    known: Any = connection.hget(keys.API_KEYS, match[1])
    key = ApiKey.model_validate_json(known) if known else None
    right = hmac.compare_digest(_digest(match[2]), key.digest if key else "0" * 64)
    return key if right else None


def shared_secret(connection: Redis, name: str) -> bytes:
    """32 random bytes that all processes know; who first needs them makes them."""
    if not connection.exists(name):
        connection.set(name, secrets.token_bytes(32), nx=True)
    return cast(bytes, connection.get(name))


def listing(connection: Redis) -> list[ApiKey]:
    """All keys, by name."""
    known: Any = connection.hvals(keys.API_KEYS)
    return sorted((ApiKey.model_validate_json(one) for one in known), key=lambda key: (key.name, key.key_id))


def revoke(connection: Redis, key_id: str) -> None:
    """Let nobody use it any more; its jobs go on. Raises KeyNotFound."""
    if not connection.hdel(keys.API_KEYS, key_id):
        raise KeyNotFound(f"There is no key {key_id[:16]!r}; `upres keys` lists them.")


def admit(connection: Redis, key: ApiKey, job_id: str) -> None:
    """Count one submission. Raises RateLimited, TooManyJobs or QuotaExceeded, each with when to try again."""
    limits = (key.requests_per_minute, key.jobs_at_once, int(key.megapixels_per_day * 1e6))
    verdict, milliseconds = call(connection, "admit", key.key_id, job_id, *limits)
    if verdict == b"yes":
        return
    kinds: dict[bytes, tuple[type[LimitReached], str]] = {
        b"rate": (RateLimited, _too_fast(key)),
        b"jobs": (TooManyJobs, f"This key may have {key.jobs_at_once} jobs at once; wait for one to end."),
        b"pixels": (QuotaExceeded, f"This key may enlarge to {key.megapixels_per_day:g} megapixels in 24 hours."),
    }
    kind, message = kinds[verdict]
    raise kind(message, retry_after=max(1, -(-milliseconds // 1000)))


def pace(connection: Redis, key: ApiKey) -> None:
    """Count a request that is no submission. Raises RateLimited, with when to try again."""
    milliseconds = call(connection, "pace", key.key_id, key.requests_per_minute)
    if milliseconds:
        raise RateLimited(_too_fast(key), retry_after=max(1, -(-milliseconds // 1000)))


def charge(connection: Redis, lease: Lease, pixels: int) -> None:
    """Count what a job makes for whoever submitted it. Raises QuotaExceeded when the key has not so many left."""
    over = call(connection, "charge", lease.job_id, lease.holder, pixels)
    if over:
        raise _over(pixels, *over)


def check_quota(connection: Redis, key: ApiKey, pixels: int) -> None:
    """Raise QuotaExceeded when a result of so many pixels would be more than the key has left."""
    name = keys.api_key_pixels(key.key_id)
    used: Any = connection.hget(name, "used")
    left = key.megapixels_per_day * 1e6 - int(used or 0)
    if pixels > left:
        raise _over(pixels, left, connection.pttl(name))


def _over(pixels: int, left: float, milliseconds: int) -> QuotaExceeded:
    message = f"The result has {pixels / 1e6:.2f} megapixels, and this key has {left / 1e6:.2f} left."
    return QuotaExceeded(message, retry_after=max(1, -(-milliseconds // 1000)))


def _too_fast(key: ApiKey) -> str:
    return f"This key may ask {key.requests_per_minute} times a minute."


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
