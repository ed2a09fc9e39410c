"""Webhooks: requests that tell a client's server how a job ended, as Standard Webhooks (standardwebhooks.com) says.

The end of a job and its webhook are written together (jobs.lua), so that no webhook is lost; any worker sends it. If
that worker dies, another one sends it again, so a server may receive a webhook twice, with the same `webhook-id`.
"""

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from redis import Redis

from upres.core import keys
from upres.core.api_keys import shared_secret
from upres.core.script import call

PAUSES = (5, 60, 5 * 60, 30 * 60, 2 * 3600, 8 * 3600, 24 * 3600)
"""Seconds before the second, third, … attempt (± 10 %). After the last attempt the webhook is given up."""

MAX_ASKED = 3600
"""Longest pause in seconds that a receiver can ask for (Retry-After)."""


class Due(NamedTuple):
    """A webhook that is due: the job's id, the attempt (from 1), the address, the owner ("" for none), the event."""

    job_id: str
    attempt: int
    url: str
    owner: str
    event: str

    @property
    def message_id(self) -> str:
        """The `webhook-id`, which is the same for each attempt."""
        return f"msg_{self.job_id}"


def body(event: Mapping[str, Any]) -> str:
    """Make the body of a webhook: JSON {type, timestamp, data}, in which data is the event as JSON."""
    message = {"type": f"job.{event['type']}", "timestamp": event.get("at"), "data": event}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def due(connection: Redis) -> Due | None:
    """Return a webhook that is due, or None. No other worker gets it for keys.WEBHOOK_LEASE_SECONDS."""
    answer = call(connection, "webhook")
    if not answer:
        return None
    job_id, attempt, url, owner, event = answer
    return Due(job_id.decode(), int(attempt), url.decode(), owner.decode(), event.decode())


def delete(connection: Redis, due: Due) -> None:
    """Delete a webhook that was delivered or is given up."""
    call(connection, "webhook_tried", due.job_id)


def postpone(connection: Redis, due: Due, seconds: float) -> None:
    """Postpone a webhook by `seconds`, without counting an attempt."""
    call(connection, "webhook_tried", due.job_id, seconds, "not tried")


def schedule_retry(connection: Redis, due: Due, asked: float = 0) -> float | None:
    """Schedule the next attempt and return the seconds until then; after the last one give up and return None.

    The receiver has `asked` for a pause of that many seconds; up to MAX_ASKED a pause is at least that long.
    """
    if due.attempt > len(PAUSES):
        delete(connection, due)
        return None
    pause = PAUSES[due.attempt - 1] * (0.9 + 0.2 * secrets.randbelow(1000) / 1000)
    pause = max(pause, min(asked, MAX_ASKED))
    call(connection, "webhook_tried", due.job_id, pause)
    return pause


def secret(connection: Redis, owner: str | None) -> str:
    """Return the secret (`whsec_…`) that signs an owner's webhooks. All jobs without an owner share one secret.

    It is derived from a root secret by HMAC-SHA256 (RFC 2104), so an owner cannot compute another owner's secret.
    """
    root = shared_secret(connection, keys.WEBHOOK_SIGNING_KEY)
    return "whsec_" + base64.b64encode(hmac.digest(root, (owner or "").encode(), "sha256")).decode()
