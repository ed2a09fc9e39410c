"""A discrete-event simulation (simpy) of workers on one queue. Times are seconds of simulated time.

A free slot takes a job. The job uses one CPU core of the host for `before` seconds (fetch, decode), then the device of
the worker for `device` seconds, exclusively, then one CPU core for `after` seconds (encode, store). On a machine
without a GPU, the device is all CPU cores of the host together. Redis takes no simulated time: it answers within a
millisecond.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import simpy

Process = Generator[Any, Any, None]


class Times(NamedTuple):
    """Seconds that a job takes in each phase, on an idle machine."""

    before: float
    device: float
    after: float


class Job(NamedTuple):
    """A job: the second of its arrival, and its times."""

    arrives: float
    times: Times


class Machine:
    """The machine that workers share. With `cores` None, each worker has unlimited cores and its own device."""

    def __init__(self, env: simpy.Environment, cores: int | None = None) -> None:
        self.cores = cores
        self._free = simpy.Container(env, cores or 1, cores or 1)
        self._env = env

    def use(self, cores: int | None, seconds: float) -> Process:
        """Occupy a number of cores, or all of them with None, for `seconds`."""
        if self.cores is None:
            yield self._env.timeout(seconds)
            return
        many = cores or self.cores
        yield self._free.get(many)
        yield self._env.timeout(seconds)
        yield self._free.put(many)


@dataclass
class Record:
    """The results of a simulation."""

    waits: list[float] = field(default_factory=list)
    """Seconds of each job, from its arrival until a slot takes it."""
    ended: list[float] = field(default_factory=list)
    by_worker: dict[int, int] = field(default_factory=dict)
    """Number of finished jobs of each worker."""
    worker_seconds: float = 0.0
    """Sum over workers of the seconds from the request for a worker to its end: the time that is paid for."""
    samples: list[tuple[float, int, int, int]] = field(default_factory=list)
    """(time, jobs waiting, workers requested, workers ready)."""


class Fleet:
    """Workers that are added and removed on request. A removed worker first finishes its jobs."""

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
        """Number of jobs in the queue."""
        return len(self.queue.items)

    @property
    def ready(self) -> int:
        """Number of workers that take jobs."""
        return sum(worker.ready for worker in self.workers)

    def feed(self, jobs: Iterable[Job]) -> Process:
        """Put each job into the queue when it arrives."""
        for job in jobs:
            if job.arrives > self.env.now:
                yield self.env.timeout(job.arrives - self.env.now)
            self.queue.put(job)

    def scale(self, wanted: int) -> None:
        """Set the number of workers; the youngest are removed first, as Kubernetes does by default."""
        while len(self.workers) < wanted:
            self._names += 1
            self.workers.append(Worker(self, self._names))
        while len(self.workers) > wanted:
            self.workers.pop().stop()

    def watch(self, every: float) -> Process:
        """Record a sample every `every` seconds."""
        while True:
            self.record.samples.append((self.env.now, self.waiting, len(self.workers), self.ready))
            yield self.env.timeout(every)


class Worker:
    """One worker process with its slots, and a device that processes one job at a time."""

    def __init__(self, fleet: Fleet, name: int) -> None:
        self.fleet, self.name = fleet, name
        self.ready = self.leaving = False
        self._device = simpy.Resource(fleet.env, 1)
        self._idle: set[simpy.Process] = set()
        self._began, self._slots = fleet.env.now, 0
        fleet.env.process(self._start())

    def stop(self) -> None:
        """Take no more jobs; finish those that were taken."""
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
    """Simulate a fixed number of workers, ready from the beginning, until all jobs have ended."""
    env = simpy.Environment()
    fleet = Fleet(env, slots, between=between, machine=Machine(env, cores))
    env.process(fleet.feed(jobs))
    fleet.scale(workers)
    env.run()
    return fleet.record
