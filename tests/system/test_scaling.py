"""The scaling simulation agrees with queueing theory, the rules with the manifests; real scale-in interrupts no job."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling.fleet import Fleet, Job, Process, Times, run_all
from benchmarks.scaling.rules import Keda, Look, Rule, TargetTracking
from benchmarks.scaling.scenarios import DAY, PATTERNS, Plan, arrivals, simulate
from tests import scale_in

times = st.builds(Times, *[st.floats(0.001, 5)] * 3)


def poisson(rate: float, count: int, times: Times) -> list[Job]:
    rng, at = random.Random(5), 0.0
    return [Job(at := at + rng.expovariate(rate), times) for _ in range(count)]


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_the_mean_wait_for_one_worker_agrees_with_queueing_theory(load: float) -> None:
    """Compares with the M/D/1 formula (Pollaczek 1930, Khinchine 1932)."""
    waits = run_all(poisson(load, 60_000, Times(0, 1, 0)), 1, 1, None).waits
    assert np.mean(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.08)


@pytest.mark.parametrize(("workers", "load"), [(2, 1.4), (5, 4.0)])
def test_the_mean_wait_for_several_workers_agrees_with_queueing_theory(workers: int, load: float) -> None:
    """Compares with the M/D/c approximation of Cosmetatos (1975)."""
    waits = run_all(poisson(load, 120_000, Times(0, 1, 0)), workers, 1, None).waits
    share = load / workers
    erlang = load**workers / math.factorial(workers) / (1 - share)
    erlang /= sum(load**n / math.factorial(n) for n in range(workers)) + erlang
    random_wait = erlang / (workers * (1 - share))
    even = 1 + (1 - share) * (workers - 1) * (math.sqrt(4 + 5 * workers) - 2) / (16 * share * workers)
    assert np.mean(waits) == pytest.approx(random_wait / 2 * even, rel=0.1)


@given(jobs=st.lists(times, min_size=1, max_size=30), workers=st.integers(1, 4), slots=st.integers(1, 4))
def test_the_simulation_runs_every_job_and_no_faster_than_the_devices_allow(
    jobs: list[Times], workers: int, slots: int
) -> None:
    record = run_all([Job(0, one) for one in jobs], workers, slots, None)
    assert len(record.ended) == len(record.waits) == sum(record.by_worker.values()) == len(jobs)
    least = max(sum(one.device for one in jobs) / workers, max(map(sum, jobs)))
    assert max(record.ended) >= least * (1 - 1e-9)
    assert max(record.ended) <= sum(map(sum, jobs)) * (1 + 1e-9)


@given(jobs=st.lists(times, min_size=1, max_size=20), workers=st.integers(1, 4))
def test_workers_on_one_machine_share_its_cores(jobs: list[Times], workers: int) -> None:
    record = run_all([Job(0, one) for one in jobs], workers, 2, 2)
    work = sum(2 * one.device + one.before + one.after for one in jobs)
    assert max(record.ended) >= work / 2 * (1 - 1e-9)


def test_a_removed_worker_finishes_its_job_and_is_billed_until_then() -> None:
    env = simpy.Environment()
    fleet = Fleet(env, slots=1, cold_start=10)
    env.process(fleet.feed([Job(0, Times(0, 100, 0))] * 2))

    def go() -> Process:
        yield env.timeout(20)
        fleet.scale(0)

    fleet.scale(1)
    env.process(go())
    env.run()
    assert fleet.record.ended == [110]
    assert fleet.waiting == 1
    assert fleet.record.worker_seconds == 110


def steered(rule: Rule, looks: list[tuple[int, int]], current: int = 0) -> list[int]:
    """Return the number of workers that the rule requests after each look; a look is (waiting jobs, running jobs)."""
    wanted, ended = [], 0
    for number, (waiting, running) in enumerate(looks):
        ended += running
        current = rule.wanted(Look(number * rule.seconds, waiting, running, ended, current))
        wanted.append(current)
    return wanted


def test_keda_starts_the_first_worker_and_as_many_as_the_backlog_needs() -> None:
    assert steered(Keda(), [(0, 0)] * 10)[-1] == 0
    wanted = steered(Keda(), [(1, 0)] + [(40, 1)] * 20)
    assert wanted[0] == 1
    assert wanted[-1] == math.ceil(40 / 8)
    assert steered(Keda(), [(10_000, 2)] * 100)[-1] == 8  # maxReplicaCount
    doubling = sorted(set(steered(Keda(1000), [(10_000, 2)] * 100)))
    assert doubling[:4] == [1, 5, 10, 20]


def test_keda_keeps_enough_workers_for_the_running_jobs() -> None:
    assert steered(Keda(), [(40, 1)] * 40 + [(0, 17)] * 400)[-1] == math.ceil(17 / 4)


def test_keda_stops_one_worker_per_minute_after_five_minutes() -> None:
    looks = [(40, 1)] * 40 + [(1, 1)] * 200
    wanted = steered(Keda(), looks)
    at = [number * 5 for number, (before, after) in enumerate(pairwise(wanted)) if after < before]
    assert at[0] >= 200 + 300 - 15
    assert all(after - before >= 60 for before, after in pairwise(at))
    assert wanted[-1] == 1  # one job is still running


def test_keda_scales_to_zero_after_all_jobs_have_ended() -> None:
    wanted = steered(Keda(), [(1, 1)] + [(0, 1)] * 100 + [(0, 0)] * 80)
    assert wanted[100 + 59] == 1
    assert wanted[-1] == 0


def test_aws_starts_the_first_worker_and_more_after_three_minutes() -> None:
    assert steered(TargetTracking(), [(0, 0)] * 10)[-1] == 0
    wanted = steered(TargetTracking(100), [(1, 0)] + [(600, 4)] * 20)
    assert wanted[0] == 1
    assert wanted[1:3] == [1, 1]
    assert wanted[-1] == math.ceil(604 / TargetTracking().target)


def test_aws_stops_a_tenth_of_the_workers_while_fewer_can_run_all_jobs() -> None:
    rule = TargetTracking(100)
    wanted = steered(rule, [(1, 0)] + [(600, 4)] * 20 + [(0, 120)] * 20 + [(0, 30)] * 40)
    assert wanted[40] == math.ceil(604 / rule.target)  # all slots are busy
    steps = [before - after for before, after in pairwise(wanted[41:]) if after != before]
    assert steps[0] == 2
    assert wanted[-1] == math.floor(30 / (0.9 * rule.slots))


def test_aws_scales_to_zero_after_15_minutes_without_jobs() -> None:
    wanted = steered(TargetTracking(), [(5, 1)] * 3 + [(0, 0)] * 20)
    assert wanted[3 + 13] == 1
    assert wanted[-1] == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_traffic_pattern_creates_the_expected_number_of_jobs(pattern: str) -> None:
    rate = PATTERNS[pattern](20_000)
    most = max(rate(at) for at in range(0, int(DAY), 60))
    jobs = list(arrivals(rate, most, DAY, [Times(0, 1, 0)], seed=3))
    assert len(jobs) == pytest.approx(20_000, rel=0.03)
    assert all(rate(job.arrives) > 0 for job in jobs)


def test_a_simulated_day_runs_all_its_jobs_under_each_scaling_rule() -> None:
    plan = Plan("bursty", 2_000, [Times(0.1, 2, 0.1)], slots=2, cold_start=60)
    for rule in (Keda(), TargetTracking(), 2):
        day = simulate(plan, rule)
        assert day.jobs == pytest.approx(2_000, rel=0.1)
        assert 0 < day.busy_share <= 1
        assert day.worker_hours * 3600 >= day.jobs * 2


def test_scale_in_of_real_workers_interrupts_no_job() -> None:
    received = scale_in.scale(rounds=2, seed=11)
    assert received.jobs > 20
    assert received.in_hand > 0
    assert received.interrupted == received.unfinished == ()
