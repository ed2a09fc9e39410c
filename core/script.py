"""The Lua script that changes jobs in Redis (jobs.lua and its parts). Each operation is atomic and one round trip."""

import hashlib
from pathlib import Path
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import NoPermissionError, NoScriptError

from upres.core import keys
from upres.core.errors import VERSION_FAULTS

_CONSTANTS: dict[str, str | int] = {
    "API_KEYS": keys.API_KEYS,
    "QUEUE": keys.WAITING,
    "POPPED": keys.POPPED,
    "LEASES": keys.LEASES,
    "DEADLINES": keys.DEADLINES,
    "DEAD": keys.DEAD,
    "PARKED": keys.PARKED,
    "AUDITED": keys.AUDITED,
    "AUDIT_SECONDS": keys.AUDIT_SECONDS,
    "CLOCK_SECONDS": keys.CLOCK_SECONDS,
    "JOB_COUNTS": keys.JOB_COUNTS,
    "WORKERS": keys.WORKERS,
    "LAST_RECOVERY": keys.LAST_RECOVERY,
    "EVENTS_SECONDS": keys.EVENTS_SECONDS,
    "REUSE_SECONDS": keys.REUSE_SECONDS,
    "LEASE_SECONDS": keys.LEASE_SECONDS,
    "QUIET_SECONDS": keys.QUIET_SECONDS,
    "WORKER_SECONDS": keys.WORKER_SECONDS,
    "POPPED_SECONDS": keys.POPPED_SECONDS,
    "DAY_SECONDS": keys.DAY,
    "DEATHS": keys.DEATHS,
    "SUSPECT_DEATHS": keys.SUSPECT_DEATHS,
    "QUOTA_SECONDS": keys.QUOTA_SECONDS,
    "ATTEMPTS": keys.ATTEMPTS,
    "MAX_ATTEMPTS": keys.MAX_ATTEMPTS,
    "RETURNS": keys.RETURNS,
    "OUTDATED_SECONDS": keys.OUTDATED_SECONDS,
    "MAX_DEAD_LETTERS": keys.MAX_DEAD_LETTERS,
    "WEBHOOKS": keys.WEBHOOKS,
    "WEBHOOK_SECONDS": keys.WEBHOOK_SECONDS,
    "WEBHOOK_LEASE_SECONDS": keys.WEBHOOK_LEASE_SECONDS,
    "PREVIEW_SECONDS": keys.PREVIEW_SECONDS,
    "OUTCOMES_SECONDS": keys.OUTCOMES_SECONDS,
    "VERSION_FAULTS": " " + " ".join(VERSION_FAULTS) + " ",
}


def _literal(value: str | int) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _code(part: str) -> str:
    """Return a part of the script without its comments, which would be a quarter of what is sent with each new job."""
    lines = (Path(__file__).parent / part).read_text().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))


_PARTS = ("jobs.lua", "places.lua", "canaries.lua", "recovery.lua", "webhooks.lua", "workers.lua", "limits.lua")
_SOURCE = "\n".join(
    [
        *(f"local {name} = {_literal(value)}" for name, value in _CONSTANTS.items()),
        *map(_code, _PARTS),
    ]
)
_SHA1 = hashlib.sha1(_SOURCE.encode(), usedforsecurity=False).hexdigest()


def call(connection: "redis.Redis | redis.client.Pipeline", operation: str, *arguments: str | float) -> Any:
    """Run one operation of the script and return its answer (see jobs.lua); on a pipeline `execute` returns the answer.

    The script's SHA-1 is sent (EVALSHA); the script itself (EVAL) follows only when Redis does not have it, after a
    restart or failover, or when the Redis user may not use EVALSHA. In a pipeline the script itself is always sent,
    because a transaction cannot be repeated in part. Raises redis-py's errors.
    """
    values = (operation, *map(str, arguments))
    if isinstance(connection, Pipeline):
        return connection.eval(_SOURCE, 0, *values)
    try:
        return connection.evalsha(_SHA1, 0, *values)
    except (NoScriptError, NoPermissionError):
        return connection.eval(_SOURCE, 0, *values)
