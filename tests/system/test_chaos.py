"""A short run of the chaos tests (`make chaos`): same scenarios and invariants. Also tests the invariants."""

from pathlib import Path

import pytest

from tests.chaos import growth, images, others, rolling, scenarios
from tests.chaos.__main__ import cut_off
from tests.chaos.invariants import Kill, broken_invariants, jobs_with_falling_percent, run_twice
from tests.support import seeds
from tests.support.events import queued
from upres.core.schema import Event, Failed, Progress, Requeued, Started, now
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@pytest.fixture
def seed() -> int:
    """A new random seed for each test; it is printed, so pytest shows it when the test fails."""
    number = seeds.seed()
    print("seed", number)
    return number


def test_no_job_is_lost_when_workers_are_killed(local: Local, tmp_path: Path, seed: int) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert scenarios.killed_workers(local, log, seed, jobs=60, kills=5, seconds=15).faults == []


def test_subscribers_receive_every_event_exactly_once(local: Local, tmp_path: Path, seed: int) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert scenarios.subscribers(local, log, seed).faults == []


def test_no_job_is_lost_when_redis_is_killed_or_disconnected(tmp_path: Path, seed: int) -> None:
    with (tmp_path / "log").open("wb") as log, cut_off(log) as (local, proxy):
        assert scenarios.broken_redis(local, proxy, log, seed, jobs=40, rounds=1).faults == []


def test_no_job_fails_when_redis_is_demoted_or_refuses_writes(tmp_path: Path, seed: int) -> None:
    with (tmp_path / "log").open("wb") as log, cut_off(log) as (local, proxy):
        assert others.demotions(local, proxy, log, seed, jobs=40, rounds=1).faults == []


def test_no_job_fails_when_the_store_refuses_one_of_two_workers(local: Local, tmp_path: Path, seed: int) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert others.sick_store(local, log, seed, jobs=60, seconds=10).faults == []


@pytest.mark.timeout(400)
def test_no_job_fails_and_no_client_sees_an_error_when_every_part_is_replaced(tmp_path: Path, seed: int) -> None:
    with (tmp_path / "log").open("wb") as log, Local(environment=images.ENVIRONMENT) as local:
        local.stop("worker")
        assert rolling.restarts(local, log, seed, rounds=1).faults == []


@pytest.mark.timeout(400)
def test_jobs_of_all_kinds_leave_no_processes_and_do_not_make_a_worker_grow(seed: int) -> None:
    with Local(environment=images.ENVIRONMENT) as local:
        assert growth.mixed(local, seed, jobs=40).faults == []


ID = "0" * 32
START = Started(
    job_id=ID, worker="w-7-x-0", device="d", model="m", model_version="1", model_digest="0", attempt=1, waited_seconds=0
)
FAILED = Failed(job_id=ID, code="c", message="m", retryable=False)


def half(percent: float) -> Event:
    return Progress(job_id=ID, stage="upscale", percent=percent)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([], "does not begin"),
        ([START, FAILED], "does not begin"),
        ([queued(ID), START], "hangs after started"),
        ([queued(ID), FAILED, FAILED], "2 terminal events"),
        ([queued(ID), START, START.model_copy(update={"attempt": 1}), FAILED], "out of order"),
        ([queued(ID), START, half(5), FAILED, half(6)], "hangs after progress"),
    ],
)
def test_the_invariants_report_an_invalid_order_of_events(events: list[Event], says: str) -> None:
    assert any(says in fault for fault in broken_invariants({ID: events}))


def test_the_invariants_report_jobs_run_twice_and_progress_that_goes_back() -> None:
    once: list[Event] = [queued(ID), START, half(5), FAILED]
    assert broken_invariants({ID: once}) == []
    again = START.model_copy(update={"attempt": 2})
    requeued = Requeued(job_id=ID, reason="worker_lost")
    assert run_twice({ID: [queued(ID), START, again, FAILED]}, []) == [ID]
    assert run_twice({ID: [queued(ID), START, requeued, again, FAILED]}, []) == [ID]
    assert run_twice({ID: [queued(ID), START, requeued, again, FAILED]}, [Kill(7, now())]) == []
    assert jobs_with_falling_percent({ID: [queued(ID), START, half(50), half(5), FAILED]}) == 1
    assert jobs_with_falling_percent({ID: [queued(ID), START, half(50), requeued, again, half(5), FAILED]}) == 0
