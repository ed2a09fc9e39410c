"""Coalescing: identical work is done once. The first job does it; the other jobs wait for its result and share it."""

import secrets
from typing import Literal

from redis import Redis

from upres.core import events
from upres.core.leases import Lease, requeued
from upres.core.schema import Result, Succeeded
from upres.core.script import call

Claim = Result | Literal["run", "parked"]


def claim(connection: Redis, work: str, lease: Lease, gone: bool = False) -> Claim | None:
    """Claim a piece of work (a key made by keys.work) for a job that this worker holds.

    Returns a Result when another job has done the same work; with `gone` the stored result is deleted first, because
    its images are missing in the store. Returns "run" when this job has to do the work. Returns "parked" when another
    job is doing it: this job has lost its lease, and goes back into the queue when the other job ends, whether or not
    it succeeds. Returns None when this worker does not hold the job any more.
    """
    once, requeued_event = secrets.token_hex(8), requeued("identical_job")
    answer = call(connection, "claim", work, lease.job_id, once, lease.holder, requeued_event, "gone" if gone else "")
    match answer:
        case [b"run"]:
            return "run"
        case [b"parked"]:
            return "parked"
        case [b"done", data]:
            event = events.parse_one(data)
            if isinstance(event, Succeeded):
                return event.result
            return claim(connection, work, lease, gone=True)  # another release stored what this one cannot read
    return None
