"""Tests of the memory budget of a worker: jobs never reserve more than there is, and each gets its turn."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import wait_until
from upres.core.leases import Lease
from upres.worker.in_flight import InFlightJobs
from upres.worker.memory_budget import MemoryBudget, estimate
from upres.worker.waits import reserved_memory


@settings(max_examples=30, deadline=None)
@given(needs=st.lists(st.integers(1, 150), min_size=1, max_size=12))
def test_jobs_together_never_reserve_more_than_the_budget(needs: list[int]) -> None:
    """A job that is larger than the whole budget runs alone."""
    budget, lock = MemoryBudget(100), threading.Lock()
    running: list[int] = []
    most: list[list[int]] = []

    def job(need: int) -> None:
        with budget.reserve(need, lambda: None):
            with lock:
                running.append(need)
                most.append(list(running))
            time.sleep(0)
            with lock:
                running.remove(need)

    threads = [threading.Thread(target=job, args=(need,)) for need in needs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == len(needs)
    assert all(sum(together) <= 100 or len(together) == 1 for together in most)


def test_a_large_job_is_not_overtaken_for_ever_by_small_ones() -> None:
    budget, order = MemoryBudget(100), []
    waits = threading.Event()

    def job(name: str, need: int) -> None:
        with budget.reserve(need, waits.set):
            order.append(name)

    with budget.reserve(60, lambda: None):
        large = threading.Thread(target=job, args=("large", 90))
        large.start()
        assert waits.wait(10)
        small = threading.Thread(target=job, args=("small", 10))
        small.start()
        wait_until(lambda: len(budget._waiting) == 2)
        assert order == []
    large.join(10)
    small.join(10)
    assert order == ["large", "small"]


def test_a_failed_wait_gives_up_its_place() -> None:
    budget = MemoryBudget(100)

    def fail() -> None:
        raise RuntimeError

    with budget.reserve(60, lambda: None):
        try:
            with budget.reserve(60, fail):
                raise AssertionError
        except RuntimeError:
            pass
    with budget.reserve(100, fail):
        pass


def test_estimates_are_above_what_was_measured() -> None:
    """Peaks above the idle worker, in bytes, of jobs with 16, 64 and 185 megapixels of output as JPEG."""
    for megapixels, measured in ((16, 160e6), (64, 830e6), (185, 1770e6)):
        assert estimate(3 * megapixels * 1_000_000, "jpeg") >= measured


def test_the_time_of_a_job_does_not_run_while_it_waits_for_memory() -> None:
    """Another job has the memory, so this one must not fail with «timed out» for that."""
    context, report = Mock(budget=MemoryBudget(100)), Mock()
    job = InFlightJobs().add(Lease("0" * 32, "h", 1, 3600, {}))

    def run() -> None:
        with reserved_memory(context, report, job, 50):
            assert not job.paused

    with ThreadPoolExecutor(1) as pool:
        with context.budget.reserve(100, lambda: None):
            waiting = pool.submit(run)
            wait_until(lambda: report.notice.called)
            assert job.paused
        waiting.result(10)
