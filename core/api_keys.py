"""API keys and their limits, stored in Redis. Of the secret only the digest is stored.

The text of a key is `upres_ID_SECRET`. The secret has 256 random bits, so SHA-256 without a salt is enough, and no slow
hash is needed. The id is not secret; jobs store it as their owner.
"""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Any, Literal, cast

from pydantic import Field
from redis import Redis

from upres.core import keys
from upres.core.errors import FunctionUnavailable, KeyNotFound, QuotaExceeded, RateLimited, TooManyJobs, Unauthorized
from upres.core.leases import Lease
from upres.core.schema import TolerantModel, now
from upres.core.script import call
from upres.core.tolerance import or_none, readable

Pace = Literal["rate", "reads"]
"""What a request counts for: `rate` has the requests that may cost most (POST), `reads` all others."""
READS_PER_JOB = 120
"""Requests per minute that may read or cancel jobs, for each job that the key may have at once: a client that polls
every job once a second, and its preview too."""
MIN_READS = 600
"""Such requests per minute of a key that may have few jobs: a page that was reloaded reads all its jobs."""
READ_BURST_SECONDS = 10
"""Such requests may come in one burst that is as large as the number that is allowed in this time."""
_TEXT = re.compile(r"upres_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


class ApiKey(TolerantModel):
    """An API key without its secret."""

    key_id: str = Field(description="Id of the key: eight hexadecimal digits.")
    name: str = Field(description="Name of the key for operators, such as its user.")
    digest: str = Field(description="SHA-256 of the secret.")
    created_at: datetime = Field(description="Time at which the key was created, UTC.")
    requests_per_minute: int = Field(
        120, ge=1, description="Rate limit of POST requests per minute; the same number may come in one burst."
    )
    jobs_at_once: int = Field(100, ge=1, description="Maximum number of jobs that have not ended.")
    megapixels_per_day: float = Field(50_000, gt=0, description="Quota: megapixels of results within 24 hours.")
    megabytes_per_day: float = Field(
        20_000, gt=0, description="Quota: megabytes of images in requests and uploads within 24 hours."
    )

    @property
    def reads_per_minute(self) -> int:
        """Rate limit of requests that read or cancel jobs, per minute."""
        return max(MIN_READS, READS_PER_JOB * self.jobs_at_once)

    @property
    def reads_at_once(self) -> int:
        """The number of such requests that may come in one burst."""
        return max(MIN_READS, self.reads_per_minute * READ_BURST_SECONDS // 60)

    @property
    def pixels_per_day(self) -> int:
        """Quota in pixels."""
        return int(self.megapixels_per_day * 1e6)

    @property
    def bytes_per_day(self) -> int:
        """Quota in bytes."""
        return int(self.megabytes_per_day * 1e6)


def create(connection: Redis, name: str, **limits: Any) -> tuple[ApiKey, str]:
    """Create a key. Return it and its text, which cannot be read again later.

    Raises pydantic's ValidationError for limits outside of their range.
    """
    key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    key = ApiKey(key_id=key_id, name=name, digest=_digest(secret), created_at=now(), **limits)
    connection.hset(keys.API_KEYS, key_id, key.model_dump_json())
    return key, f"upres_{key_id}_{secret}"


def authenticate(connection: Redis, text: str) -> ApiKey | None:
    """Find the key with this text; None when it is not valid. The comparison of secrets takes constant time.

    Raises FunctionUnavailable when the key's record cannot be read: it is damaged, or of another release.
    """
    match = _TEXT.fullmatch(text)
    if not match:
        return None
    known: Any = connection.hget(keys.API_KEYS, match[1])
    key = or_none(ApiKey, known) if known else None
    if known and key is None:
        raise FunctionUnavailable("This server cannot read what it has about this API key; ask its operator.")
    right = hmac.compare_digest(_digest(match[2]), key.digest if key else "0" * 64)
    return key if right else None


def shared_secret(connection: Redis, name: str) -> bytes:
    """Return a secret of 32 random bytes that all processes share; the first process that needs it creates it."""
    known = connection.get(name)
    if not known:
        connection.set(name, secrets.token_bytes(32), nx=True)
        known = connection.get(name)
    return cast(bytes, known)


def replace_token_secret(connection: Redis) -> None:
    """Replace the secret that signs the tokens of jobs, so that all tokens become invalid at once."""
    connection.set(keys.JOB_SIGNING_KEY, secrets.token_bytes(32))


def listing(connection: Redis) -> list[ApiKey]:
    """Return all keys, sorted by name."""
    known: Any = connection.hvals(keys.API_KEYS)
    return sorted(readable(ApiKey, known), key=lambda key: (key.name, key.key_id))


def revoke(connection: Redis, key_id: str) -> None:
    """Delete a key, so that requests with it, or with tokens of its jobs, are refused; its jobs continue.

    Raises KeyNotFound.
    """
    if not connection.hdel(keys.API_KEYS, key_id):
        raise KeyNotFound(f"There is no key {key_id[:16]!r}; `upres keys` lists them.")


def leave(connection: Redis, key: ApiKey, place: str) -> None:
    """Give up the place that `admit` gave to a submission."""
    connection.zrem(keys.api_key_jobs(key.key_id), place)


def admit(connection: Redis, key: ApiKey, place: str, size: int = 0) -> None:
    """Count a job submission, once for each `place`, and charge the `size` of an image in the request, in bytes.

    Raises TooManyJobs or QuotaExceeded, whose `retry_after` gives seconds; or Unauthorized when the key was revoked
    after the request had begun.
    """
    _ask(connection, "admit", key, place, size)


def check_admission(connection: Redis, key: ApiKey, place: str, size: int) -> None:
    """Raise what `admit` would raise now for an image of `size` bytes, and count and charge nothing."""
    _ask(connection, "check_admission", key, place, size)


def _ask(connection: Redis, operation: str, key: ApiKey, place: str, size: int) -> None:
    limits = (key.jobs_at_once, key.pixels_per_day, size, key.bytes_per_day)
    verdict, *more = _unless_revoked(call(connection, operation, key.key_id, place, *limits))
    if verdict == b"yes":
        return
    left, milliseconds = more
    seconds = _seconds(milliseconds)
    if verdict == b"jobs":
        raise TooManyJobs(f"This key may have {key.jobs_at_once} jobs at once; wait for one to end.", seconds)
    if verdict == b"bytes":
        raise _bytes_exceeded(key, size, left, milliseconds)
    raise QuotaExceeded(f"This key may enlarge to {key.megapixels_per_day:g} megapixels in 24 hours.", seconds)


def charge_bytes(connection: Redis, key: ApiKey, size: int) -> None:
    """Charge an image of `size` bytes to the key's quota. Raises Unauthorized, or QuotaExceeded as `admit` does."""
    over = _unless_revoked(call(connection, "charge_bytes", key.key_id, size, key.bytes_per_day))
    if over:
        raise _bytes_exceeded(key, size, *over)


def _unless_revoked(answer: Any) -> Any:
    """Return the script's answer. Raises Unauthorized when it says that the key was revoked."""
    if answer == [b"revoked"]:
        raise Unauthorized("This API key was revoked while the request was being sent.")
    return answer


def count_request(connection: Redis, key: ApiKey, pace: Pace = "rate") -> None:
    """Count a request for one of the key's paces. Raises RateLimited; `retry_after` gives seconds."""
    most = burst = key.requests_per_minute
    what = "requests"
    if pace != "rate":
        most, burst, what = key.reads_per_minute, key.reads_at_once, "requests that read or cancel jobs"
    milliseconds = call(connection, "count_request", key.key_id, pace, most, burst)
    if milliseconds:
        raise RateLimited(f"This key may send {most} {what} per minute.", _seconds(milliseconds))


def charge(connection: Redis, lease: Lease, pixels: int) -> None:
    """Charge a job's pixels to the quota of the key that submitted it, once for all attempts.

    Raises QuotaExceeded when the quota has too few pixels left.
    """
    over = call(connection, "charge", lease.job_id, lease.holder, pixels)
    if over:
        raise _quota_exceeded(pixels, *over)


def check_quota(connection: Redis, key: ApiKey, pixels: int) -> None:
    """Raise QuotaExceeded when the key's quota has fewer than `pixels` left. Charges nothing."""
    left, milliseconds = call(connection, "pixels_left", key.key_id, key.pixels_per_day)
    if pixels > left:
        raise _quota_exceeded(pixels, left, milliseconds)


def _quota_exceeded(pixels: int, left: float, milliseconds: int) -> QuotaExceeded:
    message = f"The result counts as {pixels / 1e6:.2f} megapixels, and this key has {left / 1e6:.2f} left."
    return QuotaExceeded(message, _seconds(milliseconds))


def _bytes_exceeded(key: ApiKey, size: int, left: int, milliseconds: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"The image file has {size / 1e6:.2f} MB, and of the {key.megabytes_per_day:g} MB that this key may send in "
        f"24 hours {left / 1e6:.2f} are left.",
        _seconds(milliseconds),
    )


def _seconds(milliseconds: int) -> int:
    """Convert to whole seconds for Retry-After, at least 1."""
    return max(1, -(-milliseconds // 1000))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
