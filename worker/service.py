"""A worker's life: model from the store, network on the device, warm; only then jobs, until it is told to stop."""

import logging
import os
import signal
import socket
import sys
import time
import uuid
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import NoReturn

import psutil
from redis.exceptions import RedisError

from upres.core import leases, tracing
from upres.core.errors import QueueUnavailable
from upres.core.logs import JobLog
from upres.core.queue import connect, connect_quickly
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.core.workers import Worker
from upres.worker import job, metrics
from upres.worker.collector import WorkerCollector
from upres.worker.engine.device import Memory, choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.encode import Encoders
from upres.worker.keeper import Keeper
from upres.worker.model import prune
from upres.worker.models import Models
from upres.worker.probes import Health, Probes
from upres.worker.slots import InFlightJobs, Slot
from upres.worker.watcher import Watcher
from upres.worker.webhooks import Bell

log = logging.getLogger("upres.worker")

STOPPED, RESTART = 0, 75
"""Exit codes: told to stop; the device broke down or something hangs (EX_TEMPFAIL: start again)."""
WATCH_SECONDS = 0.1
GIVE_BACK_SECONDS = 3
"""Longer a worker that has to leave does not wait for Redis; the leases run out anyway."""


def serve(settings: Settings) -> int:
    """Prepare, report, and work until SIGTERM or SIGINT, or until this process can work no more.

    Then the jobs in hand have `stop_seconds` to be finished; what is left is put back into the queue. The exit
    code: STOPPED or RESTART.
    """
    health = Health()
    with Probes(settings.metrics_port, health):
        parts = prepare(settings)
        crew = Crew(settings, parts, health)
        return _work(settings, crew, parts, health)


class Crew:
    """The threads of a worker, and what they share."""

    def __init__(self, settings: Settings, parts: job.Parts, health: Health) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.in_flight = InFlightJobs()
        self.slots = [
            Slot(f"{self.name}-{number}", settings, self.in_flight, parts) for number in range(settings.slots)
        ]
        describe = partial(_describe, self.name, parts, self.in_flight)
        self.keeper = Keeper(settings, self.in_flight, describe, parts.thread.seconds_in_call)
        self.bell = Bell(settings, parts.store)
        self.watcher = parts.watcher
        self.threads = (self.keeper, self.watcher, *self.bell.threads, *self.slots)
        health.hangs = self.keeper.hangs
        metrics.REGISTRY.register(WorkerCollector(parts, self.in_flight))

    def start(self) -> None:
        """Take jobs."""
        for thread in self.threads:
            thread.start()

    def is_well(self) -> bool:
        """Whether all of them go on."""
        return not (self.in_flight.closed or self.keeper.stuck) and all(thread.is_alive() for thread in self.threads)

    def close(self) -> None:
        """Take no more."""
        self.in_flight.close()
        self.watcher.close()
        self.bell.close()


def _work(settings: Settings, crew: Crew, parts: job.Parts, health: Health) -> int:
    signals = Signals()
    crew.start()
    health.enter("ready")
    cold = time.time() - psutil.Process().create_time()
    metrics.COLD_START_SECONDS.set(cold)
    told = {"event": "ready", "worker": crew.name, "device": parts.device.name, "cold_start_seconds": round(cold, 3)}
    log.info("%s takes jobs, %d at a time, %.1f s after its start", crew.name, len(crew.slots), cold, extra=told)
    well = True
    while well and not signals.stop.wait(WATCH_SECONDS):
        well = crew.is_well()
    crew.close()
    health.enter("stopping")
    log.info("stopping after the jobs in hand; once more to give them back at once", extra={"event": "stopping"})
    with suppress(RedisError):
        crew.keeper.tell()
    _finish(crew.slots, crew.keeper, signals, settings.stop_seconds)
    left = _give_back(settings, crew.in_flight)
    with suppress(RedisError):
        crew.keeper.close()
    stats = parts.thread.stats
    log.info(
        "stopped; %d tiles in %d batches, device busy %.0f %%", stats.tiles, stats.batches, 100 * stats.busy_share()
    )
    tracing.end()
    code = STOPPED if well and not crew.keeper.stuck and not parts.thread.lost else RESTART
    if left or any(slot.is_alive() for slot in crew.slots):
        _leave(code)
    return code


def _finish(slots: list[Slot], keeper: Keeper, signals: "Signals", seconds: float) -> None:
    """Wait for the jobs in hand, until the time is up, a second signal comes, or one of them hangs."""
    deadline = time.monotonic() + seconds
    while any(slot.is_alive() for slot in slots) and time.monotonic() < deadline and not keeper.stuck:
        if signals.at_once.wait(WATCH_SECONDS):
            return


def _give_back(settings: Settings, in_flight: InFlightJobs) -> bool:
    """Put the jobs in hand into the queue again, as far as Redis is there; whether there were any."""
    in_flight.wait_idle(GIVE_BACK_SECONDS)  # a job may be on its way into a hand
    left = in_flight.current()
    with suppress(RedisError), connect_quickly(settings, GIVE_BACK_SECONDS).pipeline(transaction=False) as pipeline:
        for taken in left:
            JobLog(log, taken.lease.job_id).info("goes back into the queue", extra={"event": "requeued"})
            leases.give_back(pipeline, taken.lease, "worker_stopping")
        pipeline.execute()
    return bool(left)


def _leave(code: int) -> NoReturn:
    """End the process although its threads are at work: nobody waits for what they do."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _describe(name: str, parts: job.Parts, in_flight: InFlightJobs) -> Worker:
    ready = parts.models.ready()
    return Worker(
        name=name,
        state="stopping" if in_flight.closed else "ready",
        device=parts.device.name,
        kind=parts.device.kind,
        memory_used=parts.memory.used,
        memory_total=parts.memory.total,
        models=tuple(map(str, ready)),
        digests=tuple(model.digest for model in ready),
        slots=parts.settings.slots,
        jobs=tuple(taken.lease.job_id for taken in in_flight.current()),
    )


def prepare(settings: Settings) -> job.Parts:
    """Everything a job needs, loaded and warm.

    Raises QueueUnavailable, StoreUnavailable, ModelError, Unconfined or SettingsError.
    """
    _check_queue(settings)
    device = choose(settings.device)
    log.info("device: %s", device)
    store, thread = Store(settings), DeviceThread()
    models = Models(settings, store, device, thread)
    decoders = Decoders(min(settings.slots, os.cpu_count() or 1), settings.max_input_pixels(2))
    decoders.start()
    memory = Memory(device)
    watcher = Watcher(settings, store, models, memory)
    prune(settings.cache_dir)
    try:
        for name in settings.preloaded:
            watcher.prepare(name)
    except RedisError as error:
        raise QueueUnavailable(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error
    return job.Parts(
        connection=connect(settings),
        store=store,
        models=models,
        thread=thread,
        watcher=watcher,
        decoders=decoders,
        encoders=Encoders(settings.slots),
        settings=settings,
        device=device,
        memory=memory,
    )


def _check_queue(settings: Settings) -> None:
    """Better now than after loading a model."""
    try:
        with connect_quickly(settings) as connection:
            connection.ping()
    except RedisError as error:
        raise QueueUnavailable(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error


class Signals:
    """The first SIGTERM or SIGINT asks to stop, the second to do so at once."""

    def __init__(self) -> None:
        self.stop = Asked()
        self.at_once = Asked()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        (self.at_once if self.stop.asked else self.stop).asked = True


class Asked:
    """A flag for signal handlers: threading.Event may not be set by one that interrupted its own wait."""

    def __init__(self) -> None:
        self.asked = False

    def wait(self, seconds: float) -> bool:
        """Whether it was asked for, now or soon."""
        if not self.asked:
            time.sleep(seconds)
        return self.asked
