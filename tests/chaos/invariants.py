"""What has to hold whatever was done to the parts: pure checks over jobs' events."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from upres.core.schema import TERMINAL, Event, Progress, Queued, Requeued, Started

Told = Mapping[str, Sequence[Event]]
"""Job id → its events, in order."""


class Kill(NamedTuple):
    """A worker that was killed: its process id, and when."""

    pid: int
    at: datetime


def broken(received: Told) -> list[str]:
    """Sentences about what does not hold; none when all is well."""
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


def run_twice(received: Told, kills: Sequence[Kill]) -> list[str]:
    """Jobs that were started again although the worker that had them neither was killed nor gave them back."""
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
    """The kill that ended the worker of this attempt."""
    return next((kill for kill in kills if f"-{kill.pid}-" in started.worker and kill.at > started.at), None)


def overtaken(received: Told) -> int:
    """Jobs of which a fenced-off attempt still told something after the next had begun: percent that falls."""
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


def recoveries(received: Told, kills: Sequence[Kill]) -> list[float]:
    """For each job that a killed worker had in hand: seconds from the kill to its next start or its end."""
    seconds = []
    for events in received.values():
        for earlier, later in _attempts(events):
            kill = killed(earlier, kills)
            if kill and later.at > kill.at:
                seconds.append((later.at - kill.at).total_seconds())
    return sorted(seconds)


def _attempts(events: Sequence[Event]) -> Iterable[tuple[Started, Event]]:
    """Each start that ended in the loss of its worker, with what came next."""
    started: Started | None = None
    lost = False
    for event in events:
        if isinstance(event, Requeued):
            lost = event.reason == "worker_lost"
        elif isinstance(event, Started) or event.type in TERMINAL:
            if started and (lost or (event.type == "failed" and getattr(event, "code", "") == "worker_lost")):
                yield started, event
            started, lost = (event, False) if isinstance(event, Started) else (None, False)
