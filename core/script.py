"""The one script (jobs.lua and its other parts) that changes a job; each operation is atomic and one round trip."""

from pathlib import Path
from typing import Any

import redis

from upres.core import keys

_CONSTANTS: dict[str, str | int] = {
    "QUEUE": keys.WAITING,
    "POPPED": keys.POPPED,
    "LEASES": keys.LEASES,
    "DEADLINES": keys.DEADLINES,
    "DEAD": keys.DEAD,
    "ENDED": keys.ENDED,
    "WORKERS": keys.WORKERS,
    "LOOKED": keys.LOOKED,
    "EVENTS_SECONDS": keys.EVENTS_SECONDS,
    "REUSE_SECONDS": keys.REUSE_SECONDS,
    "LEASE_SECONDS": keys.LEASE_SECONDS,
    "QUIET_SECONDS": keys.QUIET_SECONDS,
    "WORKER_SECONDS": keys.WORKER_SECONDS,
    "POPPED_SECONDS": keys.POPPED_SECONDS,
    "DAY_SECONDS": keys.DAY,
    "ATTEMPTS": keys.ATTEMPTS,
    "MAX_DEAD_LETTERS": keys.MAX_DEAD_LETTERS,
    "WEBHOOKS": keys.WEBHOOKS,
    "WEBHOOK_SECONDS": keys.WEBHOOK_SECONDS,
    "WEBHOOK_LEASE_SECONDS": keys.WEBHOOK_LEASE_SECONDS,
    "PREVIEW_SECONDS": keys.PREVIEW_SECONDS,
}


def _literal(value: str | int) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


_SOURCE = "\n".join(
    [
        *(f"local {name} = {_literal(value)}" for name, value in _CONSTANTS.items()),
        *(
            (Path(__file__).parent / part).read_text()
            for part in ("jobs.lua", "webhooks.lua", "workers.lua", "limits.lua")
        ),
    ]
)


def call(connection: "redis.Redis | redis.client.Pipeline", operation: str, *arguments: str | float) -> Any:
    """Run one operation; its answer is documented in jobs.lua. On a pipeline it comes from `execute`."""
    return connection.eval(_SOURCE, 0, operation, *map(str, arguments))
