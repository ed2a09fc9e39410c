"""The invariants that must hold after any fault: checks of the events of jobs, without side effects."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from upres.core.schema import TERMINAL, Event, Progress, Queued, Requeued, Started

EventsByJob = Mapping[str, Sequence[Event]]
"""Job id → the events of the job, in order."""


class Kill(NamedTuple):
    """A killed worker: its process id, and when it was killed."""

    pid: int
    at: datetime


def broken_invariants(received: EventsByJob) -> list[str]:
    """Describe each broken invariant in a sentence; an empty list means that all invariants hold."""
    return [fault for job_id, events in received.items() for fault in _faults(job_id, events)]


def _faults(job_id: str, events: Sequence[Event]) -> Iterable[str]:
    kinds = [event.type for event in events]
    ends = [kind for kind in kinds if kind in TERMINAL]
    if not events or not isinstance(events[0], Queued) or kinds.count("queued") != 1:
        yield f"{job_id} does not begin with one queued: {kinds[:3]}"
    if len(ends) != 1:
        yield f"{job_id} has {len(ends)} terminal events"
    if kinds and kinds[-1] not in TERMINAL:
        yield f"{job_id} hangs after {kinds[-1]}"
    attempts = [event.attempt for event in events if isinstance(event, Started)]
    if attempts != sorted(set(attempts)):
        yield f"{job_id} was started out of order: {attempts}"
    if any(earlier == later for earlier, later in pairwise(events)):
        yield f"{job_id} has an event twice"


def run_twice(received: EventsByJob, kills: Sequence[Kill]) -> list[str]:
    """Jobs that were started again although their worker was not killed and did not requeue them."""
    return [job_id for job_id, events in received.items() if _started_over(events, kills)]


def _started_over(events: Sequence[Event], kills: Sequence[Kill]) -> bool:
    holder: Started | None = None
    for event in events:
        if isinstance(event, Started):
            if holder:
                return True
            holder = event
        elif isinstance(event, Requeued):
            if event.reason == "worker_lost" and holder and not killed(holder, kills):
                return True
            holder = None
    return False


def killed(started: Started, kills: Sequence[Kill]) -> Kill | None:
    """The kill that ended the worker of this attempt, or None."""
    return next((kill for kill in kills if f"-{kill.pid}-" in started.worker and kill.at > started.at), None)


def jobs_with_falling_percent(received: EventsByJob) -> int:
    """Count jobs whose percent decreases within an attempt: an earlier attempt still wrote events then."""
    return sum(1 for events in received.values() if _falls(events))


def _falls(events: Sequence[Event]) -> bool:
    percent = 0.0
    for event in events:
        if isinstance(event, Started):
            percent = 0
        elif isinstance(event, Progress):
            if event.percent < percent:
                return True
            percent = event.percent
    return False


def recoveries(received: EventsByJob, kills: Sequence[Kill]) -> tuple[list[float], list[float]]:
    """For each job of a killed worker: the seconds from the kill until the job is back in the queue or has failed.

    The second list has the seconds until its next start; before that, the job waits until it can be done alone.
    """
    requeued, started = [], []
    for events in received.values():
        for earlier, recovered, later in _attempts(events):
            kill = killed(earlier, kills)
            if kill and recovered.at > kill.at:
                requeued.append((recovered.at - kill.at).total_seconds())
                started.append((later.at - kill.at).total_seconds())
    return sorted(requeued), sorted(started)


def _attempts(events: Sequence[Event]) -> Iterable[tuple[Started, Event, Event]]:
    """Each started event whose worker was lost, with the event that says so, and the next started or terminal event."""
    started: Started | None = None
    lost: Event | None = None
    for event in events:
        if isinstance(event, Requeued):
            lost = event if event.reason == "worker_lost" else None
        elif isinstance(event, Started) or event.type in TERMINAL:
            if event.type == "failed" and getattr(event, "code", "") == "worker_lost":
                lost = event
            if started and lost:
                yield started, lost, event
            started, lost = (event, None) if isinstance(event, Started) else (None, None)
