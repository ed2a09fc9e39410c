"""The simulation of scaling against what theory says, the rules against the manifests, and scaling in for real."""

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
def test_one_worker_makes_wait_as_long_as_theory_says(load: float) -> None:
    """M/D/1 (Pollaczek 1930, Khinchine 1932)."""
    waits = run_all(poisson(load, 60_000, Times(0, 1, 0)), 1, 1, None).waits
    assert np.mean(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.08)


@pytest.mark.parametrize(("workers", "load"), [(2, 1.4), (5, 4.0)])
def test_many_workers_too(workers: int, load: float) -> None:
    """M/D/c, by the approximation of Cosmetatos (1975)."""
    waits = run_all(poisson(load, 120_000, Times(0, 1, 0)), workers, 1, None).waits
    share = load / workers
    erlang = load**workers / math.factorial(workers) / (1 - share)
    erlang /= sum(load**n / math.factorial(n) for n in range(workers)) + erlang
    random_wait = erlang / (workers * (1 - share))
    even = 1 + (1 - share) * (workers - 1) * (math.sqrt(4 + 5 * workers) - 2) / (16 * share * workers)
    assert np.mean(waits) == pytest.approx(random_wait / 2 * even, rel=0.1)


@given(jobs=st.lists(times, min_size=1, max_size=30), workers=st.integers(1, 4), slots=st.integers(1, 4))
def test_no_job_is_lost_and_none_is_faster_than_its_device(jobs: list[Times], workers: int, slots: int) -> None:
    record = run_all([Job(0, one) for one in jobs], workers, slots, None)
    assert len(record.ended) == len(record.waits) == sum(record.by_worker.values()) == len(jobs)
    least = max(sum(one.device for one in jobs) / workers, max(map(sum, jobs)))
    assert max(record.ended) >= least * (1 - 1e-9)
    assert max(record.ended) <= sum(map(sum, jobs)) * (1 + 1e-9)


@given(jobs=st.lists(times, min_size=1, max_size=20), workers=st.integers(1, 4))
def test_workers_of_one_machine_share_it(jobs: list[Times], workers: int) -> None:
    record = run_all([Job(0, one) for one in jobs], workers, 2, 2)
    work = sum(2 * one.device + one.before + one.after for one in jobs)
    assert max(record.ended) >= work / 2 * (1 - 1e-9)


def test_who_is_told_to_go_finishes_first_and_is_paid_until_then() -> None:
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
    """What a rule wants, when so many wait and run each time it looks."""
    wanted, ended = [], 0
    for number, (waiting, running) in enumerate(looks):
        ended += running
        current = rule.wanted(Look(number * rule.seconds, waiting, running, ended, current))
        wanted.append(current)
    return wanted


def test_keda_calls_the_first_and_as_many_as_the_backlog_needs() -> None:
    assert steered(Keda(), [(0, 0)] * 10)[-1] == 0
    wanted = steered(Keda(), [(1, 0)] + [(40, 1)] * 20)
    assert wanted[0] == 1
    assert wanted[-1] == math.ceil(40 / 8)
    assert steered(Keda(), [(10_000, 2)] * 100)[-1] == 8  # maxReplicaCount
    doubling = sorted(set(steered(Keda(1000), [(10_000, 2)] * 100)))
    assert doubling[:4] == [1, 5, 10, 20]


def test_keda_keeps_whoever_is_at_work() -> None:
    assert steered(Keda(), [(40, 1)] * 40 + [(0, 17)] * 400)[-1] == math.ceil(17 / 4)


def test_keda_lets_go_one_a_minute_after_five() -> None:
    looks = [(40, 1)] * 40 + [(1, 1)] * 200
    wanted = steered(Keda(), looks)
    at = [number * 5 for number, (before, after) in enumerate(pairwise(wanted)) if after < before]
    assert at[0] >= 200 + 300 - 15
    assert all(after - before >= 60 for before, after in pairwise(at))
    assert wanted[-1] == 1  # something runs


def test_keda_goes_to_nothing_when_nothing_is_left() -> None:
    wanted = steered(Keda(), [(1, 1)] + [(0, 1)] * 100 + [(0, 0)] * 80)
    assert wanted[100 + 59] == 1
    assert wanted[-1] == 0


def test_aws_calls_the_first_and_follows_after_three_minutes() -> None:
    assert steered(TargetTracking(), [(0, 0)] * 10)[-1] == 0
    wanted = steered(TargetTracking(100), [(1, 0)] + [(600, 4)] * 20)
    assert wanted[0] == 1
    assert wanted[1:3] == [1, 1]
    assert wanted[-1] == math.ceil(604 / TargetTracking().target)


def test_aws_sends_a_tenth_home_while_fewer_would_do() -> None:
    rule = TargetTracking(100)
    wanted = steered(rule, [(1, 0)] + [(600, 4)] * 20 + [(0, 80)] * 20 + [(0, 30)] * 40)
    assert wanted[40] == math.ceil(604 / rule.target)  # all have their hands full
    steps = [before - after for before, after in pairwise(wanted[41:]) if after != before]
    assert steps[0] == 2
    assert wanted[-1] == math.floor(30 / (0.9 * rule.slots))


def test_aws_goes_to_nothing_after_a_quiet_quarter_of_an_hour() -> None:
    wanted = steered(TargetTracking(), [(5, 1)] * 3 + [(0, 0)] * 20)
    assert wanted[3 + 13] == 1
    assert wanted[-1] == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_traffic_has_as_many_jobs_as_it_should(pattern: str) -> None:
    rate = PATTERNS[pattern](20_000)
    most = max(rate(at) for at in range(0, int(DAY), 60))
    jobs = list(arrivals(rate, most, DAY, [Times(0, 1, 0)], seed=3))
    assert len(jobs) == pytest.approx(20_000, rel=0.03)
    assert all(rate(job.arrives) > 0 for job in jobs)


def test_a_simulated_day_does_all_its_jobs() -> None:
    plan = Plan("bursty", 2_000, [Times(0.1, 2, 0.1)], slots=2, cold_start=60)
    for rule in (Keda(), TargetTracking(), 2):
        day = simulate(plan, rule)
        assert day.jobs == pytest.approx(2_000, rel=0.1)
        assert 0 < day.busy_share <= 1
        assert day.worker_hours * 3600 >= day.jobs * 2


def test_scaling_in_interrupts_nothing() -> None:
    received = scale_in.scale(rounds=2, seed=11)
    assert received.jobs > 20
    assert received.in_hand > 0
    assert received.interrupted == received.unfinished == ()
