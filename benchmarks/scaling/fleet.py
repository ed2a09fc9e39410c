"""A discrete-event simulation of workers at one queue (simpy). Times are seconds of simulated time.

A job is taken by a free slot, spends `before` on its host's processor (fetch, decode), `device` on the worker's device,
one job at a time, and `after` on the host again (encode, store). On a machine without a GPU the device is the host's
cores, all of them at once. What runs in the queue itself takes no time: Redis answers within a millisecond.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import simpy

Process = Generator[Any, Any, None]


class Times(NamedTuple):
    """What one job takes on an idle machine."""

    before: float
    device: float
    after: float


class Job(NamedTuple):
    """When it arrives, and what it takes."""

    arrives: float
    times: Times


class Machine:
    """What workers share; with `cores` of None each has as many as it wants, and a device of its own."""

    def __init__(self, env: simpy.Environment, cores: int | None = None) -> None:
        self.cores = cores
        self._free = simpy.Container(env, cores or 1, cores or 1)
        self._env = env

    def use(self, cores: int | None, seconds: float) -> Process:
        """Some of its cores, or all of them, for so long."""
        if self.cores is None:
            yield self._env.timeout(seconds)
            return
        many = cores or self.cores
        yield self._free.get(many)
        yield self._env.timeout(seconds)
        yield self._free.put(many)


@dataclass
class Record:
    """What came of it."""

    waits: list[float] = field(default_factory=list)
    """Of each job, from its arrival until a slot took it."""
    ended: list[float] = field(default_factory=list)
    by_worker: dict[int, int] = field(default_factory=dict)
    """Jobs that each did."""
    worker_seconds: float = 0.0
    """From the wish for a worker until it is gone: what is paid for."""
    samples: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Time, jobs waiting, workers wanted, workers ready."""


class Fleet:
    """Workers that come when they are wanted, and go when they are not, after the jobs in hand."""

    def __init__(
        self, env: simpy.Environment, slots: int, cold_start: float = 0.0, between: float = 0.0,
        machine: Machine | None = None,
    ) -> None:  # fmt: skip
        self.env, self.slots, self.cold_start, self.between = env, slots, cold_start, between
        self.machine = machine or Machine(env)
        self.queue = simpy.Store(env)
        self.record = Record()
        self.running = 0
        self.workers: list[Worker] = []
        self._names = 0

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self.queue.items)

    @property
    def ready(self) -> int:
        """Workers that take jobs."""
        return sum(worker.ready for worker in self.workers)

    def feed(self, jobs: Iterable[Job]) -> Process:
        """Jobs as they arrive."""
        for job in jobs:
            if job.arrives > self.env.now:
                yield self.env.timeout(job.arrives - self.env.now)
            self.queue.put(job)

    def scale(self, wanted: int) -> None:
        """So many from now on; the youngest go first, as they do where nobody says otherwise."""
        while len(self.workers) < wanted:
            self._names += 1
            self.workers.append(Worker(self, self._names))
        while len(self.workers) > wanted:
            self.workers.pop().stop()

    def watch(self, every: float) -> Process:
        """Note how it stands."""
        while True:
            self.record.samples.append((self.env.now, self.waiting, len(self.workers), self.ready))
            yield self.env.timeout(every)


class Worker:
    """One process with its slots, and a device that does one thing at a time."""

    def __init__(self, fleet: Fleet, name: int) -> None:
        self.fleet, self.name = fleet, name
        self.ready = self.leaving = False
        self._device = simpy.Resource(fleet.env, 1)
        self._idle: set[simpy.Process] = set()
        self._began, self._slots = fleet.env.now, 0
        fleet.env.process(self._start())

    def stop(self) -> None:
        """Take no more; the jobs in hand are finished."""
        self.leaving, self.ready = True, False
        for slot in list(self._idle):
            slot.interrupt()
        if not self._slots:
            self._leave()

    def _start(self) -> Process:
        yield self.fleet.env.timeout(self.fleet.cold_start)
        if self.leaving:
            return
        self.ready = True
        self._slots = self.fleet.slots
        for _ in range(self.fleet.slots):
            self.fleet.env.process(self._slot())

    def _slot(self) -> Process:
        while not self.leaving:
            me = self.fleet.env.active_process
            assert me
            get = self.fleet.queue.get()
            self._idle.add(me)
            try:
                job: Job = yield get
            except simpy.Interrupt:
                get.cancel()
                break
            finally:
                self._idle.discard(me)
            yield from self._do(job)
        self._slots -= 1
        if not self._slots:
            self._leave()

    def _do(self, job: Job) -> Process:
        fleet, env = self.fleet, self.fleet.env
        fleet.record.waits.append(env.now - job.arrives)
        fleet.running += 1
        yield from fleet.machine.use(1, job.times.before)
        with self._device.request() as mine:
            yield mine
            yield from fleet.machine.use(None, job.times.device)
        yield from fleet.machine.use(1, job.times.after + fleet.between)
        fleet.running -= 1
        fleet.record.ended.append(env.now)
        fleet.record.by_worker[self.name] = fleet.record.by_worker.get(self.name, 0) + 1

    def _leave(self) -> None:
        self.fleet.record.worker_seconds += self.fleet.env.now - self._began


def run_all(jobs: list[Job], workers: int, slots: int, cores: int | None, between: float = 0.0) -> Record:
    """A fixed number of workers that are there from the beginning, until all jobs have ended."""
    env = simpy.Environment()
    fleet = Fleet(env, slots, between=between, machine=Machine(env, cores))
    env.process(fleet.feed(jobs))
    fleet.scale(workers)
    env.run()
    return fleet.record
