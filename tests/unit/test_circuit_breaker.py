"""Tests of what the slots of a worker share: the circuit breaker, the log of outages, and jobs that must be alone."""

import logging
import math
import threading
import time

import pytest

from tests.support.waiting import wait_until
from upres.core.leases import Lease
from upres.worker import circuit_breaker, outage_log
from upres.worker.circuit_breaker import CircuitBreaker
from upres.worker.in_flight import InFlightJob, InFlightJobs
from upres.worker.outage_log import OutageLog


class Clock:
    """Stands for time.monotonic."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (circuit_breaker, outage_log):
        monkeypatch.setattr(f"{module.__name__}.time.monotonic", made)
    return made


def test_faults_pause_the_worker_longer_and_longer_and_one_job_is_tried_after_each(clock: Clock) -> None:
    breaker, pauses = CircuitBreaker(), []
    for _ in range(9):
        assert breaker.admits()
        assert breaker.fault is None or not breaker.admits()  # one job is tried, not several
        breaker.trip("the store refuses")
        breaker.trip("the store refuses")  # a second slot, at the same moment
        breaker.leave()
        assert not breaker.admits()
        begin = clock.now
        while breaker.is_open:
            clock.now += 0.25
        pauses.append(clock.now - begin)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert breaker.admits()
    breaker.close()
    assert breaker.fault is None
    assert breaker.admits()
    assert breaker.admits()


def test_an_outage_is_logged_at_its_begin_once_a_minute_and_at_its_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outage = OutageLog("Redis")
    outage.over()
    for _ in range(1300):
        outage.failed(OSError("gone"))
        clock.now += 0.1
    outage.over()
    outage.over()
    assert [record.getMessage() for record in caplog.records] == [
        "Redis is unavailable (gone); trying again",
        "Redis has been unavailable for 60 s (gone)",
        "Redis has been unavailable for 120 s (gone)",
        "Redis is available again after 130.0 s",
    ]


def test_the_time_of_a_job_does_not_run_while_it_waits_to_be_alone() -> None:
    job = InFlightJobs().add(Lease("a", "h", 1, 100, {}))
    counted = job.until
    job.pause()
    assert job.until == math.inf
    job.begin()
    assert counted <= job.until <= time.monotonic() + 100


def test_a_suspect_waits_for_its_neighbours_and_suspects_take_turns() -> None:
    jobs = InFlightJobs()
    neighbour, first, second = (jobs.add(Lease(name, "h", 1, 100, {})) for name in ("n", "first", "second"))
    running, most, done = [], [0], []

    def alone(job: InFlightJob, name: str) -> None:
        with jobs.alone(job, lambda: None):
            running.append(name)
            most[0] = max(most[0], len(running))
            done.append(name)
            running.remove(name)
        jobs.remove(job)

    threads = [threading.Thread(target=alone, args=pair) for pair in ((first, "first"), (second, "second"))]
    for thread in threads:
        thread.start()
    wait_until(lambda: not jobs.takes_jobs)
    assert done == []
    jobs.remove(neighbour)
    for thread in threads:
        thread.join(10)
    assert (sorted(done), most[0], jobs.takes_jobs, jobs.current()) == (["first", "second"], 1, True, [])
