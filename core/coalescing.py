"""Identical work is done once: the first job does it, the others wait for its result and share it."""

import secrets
from typing import Literal

from redis import Redis

from upres.core.leases import Lease, requeued
from upres.core.schema import EVENT, Result, Succeeded
from upres.core.script import call

Claim = Result | Literal["do it", "wait"]


def claim(connection: Redis, work: str, lease: Lease, gone: bool = False) -> Claim | None:
    """What a job has to do about a piece of work (a key of keys.work).

    The result, when another job has it; unless it is `gone` from the store, which forgets it. "do it":
    nobody does. "wait": another job is at it; this one has lost its lease, and is put back into the queue
    when the other ends, whichever way. None: the job is not this worker's any more.
    """
    once, requeued_event = secrets.token_hex(8), requeued("identical_job")
    answer = call(connection, "claim", work, lease.job_id, once, lease.holder, requeued_event, "gone" if gone else "")
    match answer:
        case [b"run"]:
            return "do it"
        case [b"parked"]:
            return "wait"
        case [b"done", data]:
            event = EVENT.validate_json(data)
            assert isinstance(event, Succeeded)
            return event.result
    return None
