"""`make scale-in`: add and stop workers under load, and check that no job is interrupted.

    python -m tests.scale_in --rounds 50

Each round adds one or two workers and stops one or two of the oldest workers with SIGTERM, as a scaling rule does.
Meanwhile a thread submits jobs. At the end, each job has to have succeeded in its first attempt.
"""

import argparse
import random
import sys
import threading
import time
from contextlib import ExitStack
from typing import NamedTuple

from redis import Redis

from benchmarks.scaling.local import Photos
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import events, workers
from upres.core.queue import connect
from upres.core.schema import Requeued, Started, Succeeded
from upres.embedded.child import Child
from upres.embedded.stack import Local

SIDES = (48, 96, 200)
AHEAD = 12
"""The largest number of queued jobs. The queue is never empty, so workers always have jobs to run."""
MAX_WORKERS = 3
STOP_SECONDS = 60


class Results(NamedTuple):
    """The results of the run."""

    jobs: int
    in_hand: int
    """The number of jobs that workers were running when they received SIGTERM."""
    interrupted: tuple[str, ...]
    """The ids of the jobs that were not started exactly once, or were requeued."""
    unfinished: tuple[str, ...]
    """The ids of the jobs that did not succeed."""


class Feeder(threading.Thread):
    """Submits a new job whenever the queue is short, until it is closed."""

    def __init__(self, local: Local, redis: Redis, seed: int) -> None:
        super().__init__(name="feeder")
        self._client, self._redis = Client(local.url), redis
        self._photos, self._random = Photos(), random.Random(seed)
        self._closed = threading.Event()
        self.jobs: list[str] = []

    def run(self) -> None:
        """Submit jobs."""
        with self._client as client:
            while not self._closed.is_set():
                if self._redis.llen("rq:queue:upres") >= AHEAD:
                    self._closed.wait(0.01)
                    continue
                self.jobs.append(client.submit(self._photos.draw(self._random.choice(SIDES)), 4).job_id)

    def close(self) -> None:
        """Stop submitting."""
        self._closed.set()
        self.join()


class Scaler:
    """Adds and stops workers."""

    def __init__(self, local: Local, redis: Redis) -> None:
        self._local, self._redis = local, redis
        self._numbers = iter(range(10**6))
        self._there: list[Child] = []
        self.in_hand = 0

    def add(self, count: int) -> None:
        """Start `count` workers and wait until they are registered."""
        before = len(workers.listing(self._redis))
        environment = {**self._local.environment, "UPRES_SLOTS": "2", "UPRES_STOP_SECONDS": str(STOP_SECONDS)}
        for _ in range(count):
            name, command = f"worker{next(self._numbers)}", [sys.executable, "-m", "upres.worker"]
            self._there.append(Child(name, command, environment, self._local.folder, grace=STOP_SECONDS + 10))
        wait_until(lambda: len(workers.listing(self._redis)) >= before + count, 60)

    def remove(self, count: int) -> None:
        """Stop the `count` oldest workers at the same time."""
        leaving, self._there = self._there[:count], self._there[count:]
        pids = {str(child.process.pid) for child in leaving}
        listed = [one for one in workers.listing(self._redis) if one.name.split("-")[-2] in pids]
        self.in_hand += sum(len(one.jobs) for one in listed)
        stopping = [threading.Thread(target=child.stop) for child in leaving]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    @property
    def count(self) -> int:
        """The number of running workers."""
        return len(self._there)


def scale(rounds: int, seed: int, say: bool = False) -> Results:
    """Run `rounds` rounds and return the results."""
    rng = random.Random(seed)
    with ExitStack() as stack:
        local = stack.enter_context(Local())
        redis = stack.enter_context(connect(local.settings))
        local.stop("worker")
        scaler, feeder = Scaler(local, redis), Feeder(local, redis, seed)
        scaler.add(1)
        feeder.start()
        for number in range(rounds):
            scaler.add(rng.randint(1, MAX_WORKERS - scaler.count))
            scaler.remove(rng.randint(1, scaler.count - 1))
            if say:
                print(
                    f"round {number + 1}: {len(feeder.jobs)} jobs, {scaler.in_hand} ran on stopped workers",
                    flush=True,
                )
        feeder.close()
        wait_until(lambda: redis.llen("rq:queue:upres") == 0, 120)
        scaler.remove(scaler.count)
        return _judge(redis, feeder.jobs, scaler.in_hand)


def _judge(redis: Redis, jobs: list[str], in_hand: int) -> Results:
    received = {job_id: [event for _, event in events.read(redis, job_id)] for job_id in jobs}

    def interrupted(job_id: str) -> bool:
        starts = [event for event in received[job_id] if isinstance(event, Started)]
        return len(starts) != 1 or any(isinstance(event, Requeued) for event in received[job_id])

    return Results(
        jobs=len(jobs),
        in_hand=in_hand,
        interrupted=tuple(filter(interrupted, jobs)),
        unfinished=tuple(job_id for job_id in jobs if not isinstance(received[job_id][-1], Succeeded)),
    )


def main() -> int:
    """Run the command; return exit code 1 if a job was interrupted or did not succeed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale_in", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    received = scale(options.rounds, options.seed, say=True)
    print(f"{received.jobs} jobs; {received.in_hand} were running on workers that received SIGTERM")
    print(f"{len(received.interrupted)} interrupted, {len(received.unfinished)} not done")
    return 1 if received.interrupted or received.unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
