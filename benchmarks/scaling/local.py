"""Measurements on this machine: the stages of single jobs, and 1, 2 and 4 workers on one queue."""

import io
import os
import statistics
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image
from redis import Redis

from benchmarks.scaling.fleet import Job, Times, run_all
from upres.client import Client
from upres.core import events, workers
from upres.core.queue import connect
from upres.core.schema import Result, Started, Succeeded
from upres.embedded.child import Child
from upres.embedded.stack import Local

SIDES = (64, 160, 320)
"""Sides in pixels of the input images: thumbnails, previews, small photos. The factor is 4."""
JOBS = 150
LONE = 6
"""Number of single jobs of each size; the median counts."""
SLOTS = 2
PHOTO = Path(__file__).parent.parent.parent / "samples" / "chelsea.png"


class Stages(NamedTuple):
    """The measurements of single jobs."""

    by_side: dict[int, Times]
    between: float
    """Seconds from the end of a job until its slot starts the next one."""
    cold_start: float
    """Seconds from the start of a worker process until it takes jobs; its machine is already running."""


class Run(NamedTuple):
    """The measurement of JOBS jobs with a number of workers."""

    workers: int
    seconds: float
    """From the start of the first job to the end of the last one."""
    shares: tuple[int, ...]
    """Number of jobs of each worker."""
    wait_p95: float
    predicted: float
    """`seconds` as predicted by the simulation."""


class Bench:
    """A local upres stack without its worker; benchmarks start and stop workers themselves."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> "Bench":
        self.local = self._stack.enter_context(Local())
        self.redis: Redis = self._stack.enter_context(connect(self.local.settings))
        self.client = self._stack.enter_context(Client(self.local.url))
        self._photos = Photos()
        self.local.stop("worker")
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start(self, count: int, slots: int) -> tuple[list[Child], float]:
        """Start `count` workers; returns them, and the seconds until the first one was ready."""
        begin, environment = time.monotonic(), {**self.local.environment, "UPRES_SLOTS": str(slots)}
        command = [sys.executable, "-m", "upres.worker"]
        children = [Child(f"worker{number}", command, environment, self.local.folder) for number in range(count)]
        first = 0.0
        for child in children:
            child.wait_ready(lambda: len(workers.listing(self.redis)) >= 1)
            first = first or time.monotonic() - begin
        children[-1].wait_ready(lambda: len(workers.listing(self.redis)) == count)
        return children, first

    def submit(self, sides: list[int]) -> list[str]:
        """Submit one job with a different image for each side; returns their ids."""
        return [self.client.submit(self._photos.draw(side), 4).job_id for side in sides]

    def finish(self, jobs: list[str]) -> list[list[Any]]:
        """Wait until all jobs have ended; returns the events of each."""
        for job_id in jobs:
            self.client.wait(job_id)
        return [[event for _, event in events.read(self.redis, job_id)] for job_id in jobs]


class Photos:
    """Random squares of a photo; all of them are different."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        with Image.open(PHOTO) as image:
            self._whole = image.convert("RGB").resize((640, 640))

    def draw(self, side: int) -> bytes:
        """A square of side × side pixels as a PNG file."""
        left, top = (int(self._rng.integers(0, 641 - side)) for _ in range(2))
        piece = np.asarray(self._whole.crop((left, top, left + side, top + side))).copy()
        piece[0, 0] = self._rng.integers(0, 256, 3)
        out = io.BytesIO()
        Image.fromarray(piece).save(out, "PNG")
        return out.getvalue()


def calibrate(bench: Bench) -> Stages:
    """Measure single jobs of each size, then 20 waiting jobs for the time between two jobs."""
    [worker], cold_start = bench.start(1, 1)
    bench.finish(bench.submit(list(SIDES)))  # warm-up: the first job of each size is slower
    by_side = {}
    for side in SIDES:
        done = [_result(bench.finish(bench.submit([side]))[0]).seconds for _ in range(LONE)]
        middle = {stage: statistics.median(one[stage] for one in done) for stage in done[0]}
        before, after = middle["fetch"] + middle["decode"], middle["encode"] + middle["store"]
        by_side[side] = Times(before, middle["upscale"], after)
    worker.stop()
    waiting = bench.submit([SIDES[0]] * 20)
    [worker], _ = bench.start(1, 1)
    jobs_events = sorted(bench.finish(waiting), key=lambda one: _at(one, Started))
    worker.stop()
    gaps = [(_at(two, Started) - _at(one, Succeeded)).total_seconds() for one, two in pairwise(jobs_events)]
    spent = [
        (_at(one, Succeeded) - _at(one, Started)).total_seconds() - sum(_result(one).seconds.values())
        for one in jobs_events
    ]
    return Stages(by_side, statistics.median(gaps) + statistics.median(spent), cold_start)


def race(bench: Bench, stages: Stages, count: int) -> Run:
    """Measure `count` workers with JOBS jobs that wait before the first worker starts; simulate the same."""
    rng = np.random.default_rng(count)
    sides = [int(side) for side in rng.choice(SIDES, JOBS)]
    jobs = bench.submit(sides)
    children, _ = bench.start(count, SLOTS)
    jobs_events = bench.finish(jobs)
    for child in children:
        child.stop()
    begin = min(_at(one, Started) for one in jobs_events)
    names = [_first(one, Started).worker.rpartition("-")[0] for one in jobs_events]
    simulated = run_all([Job(0, stages.by_side[side]) for side in sides], count, SLOTS, os.cpu_count(), stages.between)
    return Run(
        workers=count,
        seconds=(max(_at(one, Succeeded) for one in jobs_events) - begin).total_seconds(),
        shares=tuple(names.count(name) for name in sorted(set(names))),
        wait_p95=float(np.percentile([(_at(one, Started) - begin).total_seconds() for one in jobs_events], 95)),
        predicted=max(simulated.ended),
    )


E = TypeVar("E", Started, Succeeded)


def _first(jobs_events: list[Any], kind: type[E]) -> E:
    return next(event for event in jobs_events if isinstance(event, kind))


def _at(jobs_events: list[Any], kind: type[Started] | type[Succeeded]) -> datetime:
    return next(event for event in jobs_events if isinstance(event, kind)).at


def _result(jobs_events: list[Any]) -> Result:
    return _first(jobs_events, Succeeded).result
