"""Traffic patterns, and their simulation under a scaling rule."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simpy

from benchmarks.scaling.fleet import Fleet, Job, Record, Times
from benchmarks.scaling.rules import Look, Rule

HOUR, DAY = 3600.0, 86400.0
SAMPLE_SECONDS = 30.0

Rate = Callable[[float], float]
"""Second of the day → jobs per second."""


def steady(a_day: float) -> Rate:
    """The same rate all day."""
    return lambda _: a_day / DAY


def daily(a_day: float) -> Rate:
    """A sine over the day: almost zero at 4:00, twice the mean at 16:00."""
    return lambda at: a_day / DAY * (1 - 0.98 * math.cos(2 * math.pi * (at - 4 * HOUR) / DAY))


def bursty(a_day: float) -> Rate:
    """Batches: all jobs arrive in the first five minutes of every second hour."""
    return lambda at: a_day / 12 / 300 if at % (2 * HOUR) < 300 else 0.0


PATTERNS: dict[str, Callable[[float], Rate]] = {"steady": steady, "bursty": bursty, "daily": daily}


def arrivals(rate: Rate, most: float, seconds: float, mix: list[Times], seed: int) -> Iterator[Job]:
    """A Poisson process, by thinning (Lewis and Shedler 1979). `most` must not be lower than any value of `rate`."""
    rng, at = random.Random(seed), 0.0
    while (at := at + rng.expovariate(most)) < seconds:
        if rng.random() * most < rate(at):
            yield Job(at, rng.choice(mix))


@dataclass(frozen=True)
class Plan:
    """The parameters of a simulation."""

    pattern: str
    a_day: float
    mix: list[Times]
    slots: int
    cold_start: float
    hours: float = 24.0


class Outcome(NamedTuple):
    """The results of a simulation; times in seconds, worker_hours in hours."""

    jobs: int
    wait_p50: float
    wait_p95: float
    wait_most: float
    backlog_most: int
    workers_most: int
    worker_hours: float
    busy_share: float
    """Share of the paid worker time in which the device works."""
    record: Record


def simulate(plan: Plan, rule: Rule | int) -> Outcome:
    """Simulate the traffic of a plan, with workers by a rule or with a fixed number of them."""
    env = simpy.Environment()
    fleet = Fleet(env, plan.slots, plan.cold_start)
    seconds, rate = plan.hours * HOUR, PATTERNS[plan.pattern](plan.a_day)
    most = max(rate(at) for at in np.arange(0, DAY, 60))
    jobs = list(arrivals(rate, most, seconds, plan.mix, seed=1))
    env.process(fleet.feed(jobs))
    env.process(fleet.watch(SAMPLE_SECONDS))
    if isinstance(rule, int):
        fleet.scale(rule)
    else:
        env.process(_steer(fleet, rule))
    env.run(until=seconds)
    while fleet.waiting or fleet.running:  # also finish the jobs that are left at the end of the day
        env.run(until=env.now + HOUR)
    fleet.scale(0)
    env.run(until=env.now + HOUR)
    return _outcome(fleet, jobs)


def _steer(fleet: Fleet, rule: Rule) -> "simpy.events.ProcessGenerator":
    while True:
        look = Look(fleet.env.now, fleet.waiting, fleet.running, len(fleet.record.ended), len(fleet.workers))
        fleet.scale(rule.wanted(look))
        yield fleet.env.timeout(rule.seconds)


def _outcome(fleet: Fleet, jobs: list[Job]) -> Outcome:
    record = fleet.record
    waits = np.asarray(record.waits)
    return Outcome(
        jobs=len(record.ended),
        wait_p50=float(np.median(waits)),
        wait_p95=float(np.percentile(waits, 95)),
        wait_most=float(waits.max()),
        backlog_most=max(waiting for _, waiting, _, _ in record.samples),
        workers_most=max(wanted for _, _, wanted, _ in record.samples),
        worker_hours=record.worker_seconds / HOUR,
        busy_share=sum(job.times.device for job in jobs) / record.worker_seconds,
        record=record,
    )
