"""Addresses that are told how a job ended, by the rules of Standard Webhooks (standardwebhooks.com).

The end of a job and the task to tell it are written together (jobs.lua), so that none is forgotten; any worker
tells it. Whoever dies at it leaves it to the next, so an address may hear of the same end twice: `webhook-id` is the
same then.
"""

import base64
import hmac
import json
import secrets
from typing import NamedTuple
from urllib.parse import urlsplit

from redis import Redis

from upres.core import keys
from upres.core.api_keys import shared_secret
from upres.core.schema import Event
from upres.core.script import call

PAUSES = (5, 60, 5 * 60, 30 * 60, 2 * 3600, 8 * 3600, 24 * 3600)
"""Seconds before the second, third, … attempt; after the last it is given up."""


class Due(NamedTuple):
    """The end of a job that is to be told now."""

    job_id: str
    attempt: int
    url: str
    owner: str
    event: str

    @property
    def message_id(self) -> str:
        """The same for each attempt."""
        return f"msg_{self.job_id}"

    @property
    def subject(self) -> str:
        """Whom it concerns: the owner, or where there is none the host."""
        return self.owner or urlsplit(self.url).netloc


def body(event: Event) -> str:
    """What is sent: JSON, {type, timestamp, data}, where data is the event."""
    data = event.model_dump(mode="json", exclude_none=True)
    message = {"type": f"job.{event.type}", "timestamp": data["at"], "data": data}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def due(connection: Redis) -> Due | None:
    """One that is to be told now; nobody else gets it while it is tried."""
    answer = call(connection, "webhook")
    if not answer:
        return None
    job_id, attempt, url, owner, event = answer
    return Due(job_id.decode(), int(attempt), url.decode(), owner.decode(), event.decode())


def done(connection: Redis, due: Due) -> None:
    """It was told, or is given up."""
    call(connection, "webhook_tried", due.job_id)


def put_off(connection: Redis, due: Due, seconds: float) -> None:
    """Nothing was tried; somebody may in so many seconds."""
    call(connection, "webhook_tried", due.job_id, seconds, "not tried")


def again(connection: Redis, due: Due) -> float | None:
    """Try it again later: in how many seconds; None when that was the last attempt."""
    if due.attempt > len(PAUSES):
        done(connection, due)
        return None
    pause = PAUSES[due.attempt - 1] * (0.9 + 0.2 * secrets.randbelow(1000) / 1000)
    call(connection, "webhook_tried", due.job_id, pause)
    return pause


def secret(connection: Redis, owner: str | None) -> str:
    """What messages to an owner are signed with, `whsec_…`; of jobs without an owner all have the same.

    Made from one secret by HMAC-SHA256 (RFC 2104), so that owners know nothing of each other's.
    """
    root = shared_secret(connection, keys.SIGNS_WEBHOOKS)
    return "whsec_" + base64.b64encode(hmac.digest(root, (owner or "").encode(), "sha256")).decode()
