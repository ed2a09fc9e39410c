"""The life of a worker process: load the models, warm up the device, run jobs until it gets a signal."""

import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import NoReturn

import psutil
from redis.exceptions import RedisError

from upres.core import cores, leases, tracing
from upres.core.errors import QueueUnavailable
from upres.core.logs import JobLog
from upres.core.queue import connect, connect_with_timeout
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.core.workers import Worker
from upres.worker import loading_notes, metrics, version_trials
from upres.worker.circuit_breaker import CircuitBreaker
from upres.worker.collector import WorkerCollector
from upres.worker.context import WorkerContext
from upres.worker.ended_jobs import EndedJobs
from upres.worker.engine.device import Memory, choose, host_memory
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.heartbeat import Heartbeat
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.encode import Encoders
from upres.worker.in_flight import InFlightJobs
from upres.worker.label_watcher import LabelWatcher
from upres.worker.memory_budget import SHARE, MemoryBudget
from upres.worker.model import prune
from upres.worker.model_cache import ModelCache
from upres.worker.outage_log import OutageLog
from upres.worker.outbox import OutboxThread
from upres.worker.probes import Health, Probes
from upres.worker.slots import SharedBySlots, Slot
from upres.worker.webhooks import WebhookDispatcher

log = logging.getLogger("upres.worker")

STOPPED, RESTART = 0, 75
"""Exit codes: stopped by a signal; to be restarted, because the device broke down or something hangs (EX_TEMPFAIL)."""
SWITCH_SECONDS = 0.0005
"""Seconds after which a thread that runs Python code lets another one run (default: 0.005). The device thread waits for
so long before each of the hundred launches of a network, while threads that decode or encode run Python code."""
CHECK_SECONDS = 0.1
"""Interval in seconds at which the main thread checks for signals and dead threads."""
GIVE_BACK_SECONDS = 3
"""A worker that ends waits at most this many seconds for Redis; without an answer the leases expire."""


def serve(settings: Settings) -> int:
    """Prepare, then run jobs until SIGTERM or SIGINT, or until this process cannot work any more.

    Then the jobs in flight have `stop_seconds` to finish; the others go back into the queue. Returns the exit code,
    STOPPED or RESTART. Raises what `prepare` raises.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    health = Health()
    with Probes(settings.metrics_port, health):
        context = prepare(settings)
        return _serve(settings, WorkerThreads(settings, context, health), context, health)


class WorkerThreads:
    """All threads of a worker, and the jobs in flight, which they share."""

    def __init__(self, settings: Settings, context: WorkerContext, health: Health) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.in_flight = InFlightJobs()
        names = [f"{self.name}-{number}" for number in range(settings.slots)]
        breaker, outage = CircuitBreaker(), OutageLog("Redis")
        shared = SharedBySlots(self.in_flight, breaker, outage, threading.Lock())
        self.slots = [Slot(name, settings, shared, context) for name in names]
        describe = partial(_describe, self.name, context, self.in_flight)
        self.heartbeat = Heartbeat(settings, self.in_flight, describe, context.thread.seconds_in_call, outage)
        self.webhooks = WebhookDispatcher(settings, context.store, outage)
        self.label_watcher = context.label_watcher
        shared_threads = (context.ended_jobs, context.outbox_thread)
        self._all = (self.heartbeat, self.label_watcher, *shared_threads, self.webhooks, *self.slots)
        health.hangs = self.heartbeat.hangs
        health.fault = lambda: breaker.fault
        metrics.REGISTRY.register(WorkerCollector(context, self.in_flight))

    def start(self) -> None:
        """Start all threads."""
        for thread in self._all:
            thread.start()

    def are_well(self) -> bool:
        """Return whether all threads run and nothing hangs."""
        return not (self.in_flight.closed or self.heartbeat.stuck) and all(thread.is_alive() for thread in self._all)

    def are_busy(self) -> bool:
        """Return whether a slot still runs."""
        return any(slot.is_alive() for slot in self.slots)

    def close(self) -> None:
        """Take no more jobs, labels and webhooks. The heartbeat continues to renew the leases of the jobs in flight."""
        self.in_flight.close()
        self.label_watcher.close()
        self.webhooks.close()


def _serve(settings: Settings, threads: WorkerThreads, context: WorkerContext, health: Health) -> int:
    """Run jobs, then stop cleanly, and return the exit code."""
    signals = Signals()
    threads.start()
    health.enter("ready")
    _log_ready(threads, context)
    well = True
    while well and not signals.stop.wait(CHECK_SECONDS):
        well = threads.are_well()
    threads.close()
    health.enter("stopping")
    log.info("stopping after the jobs in flight; a second signal gives them back", extra={"event": "stopping"})
    with suppress(RedisError):
        threads.heartbeat.publish()
    _wait_for_jobs(threads, signals, settings.stop_seconds)
    left = _give_back(settings, threads.in_flight)
    with suppress(RedisError):
        threads.heartbeat.close()
    stats, busy = context.thread.stats, 100 * context.thread.stats.busy_share()
    log.info("stopped; %d tiles in %d batches, device busy %.0f %%", stats.tiles, stats.batches, busy)
    tracing.end()
    code = STOPPED if well and not threads.heartbeat.stuck and not context.thread.lost else RESTART
    if code == STOPPED:  # it did not die of the versions that it is loading or trying
        loading_notes.forget()
        version_trials.forget()
    # A driver may abort the process when Python unloads it after the device was lost: then the code would be another.
    if left or threads.are_busy() or context.thread.lost:
        _exit_now(code)
    return code


def _log_ready(threads: WorkerThreads, context: WorkerContext) -> None:
    """Log, and set in the metrics, how many seconds the start of the process took."""
    cold = time.time() - psutil.Process().create_time()
    metrics.COLD_START_SECONDS.set(cold)
    fields = {
        "event": "ready",
        "worker": threads.name,
        "device": context.device.name,
        "cold_start_seconds": round(cold, 3),
    }
    text = "%s takes jobs, %d at a time, %.1f s after its start"
    log.info(text, threads.name, len(threads.slots), cold, extra=fields)


def _wait_for_jobs(threads: WorkerThreads, signals: "Signals", seconds: float) -> None:
    """Wait until the slots have finished, the time is up, a second signal comes, or a job hangs."""
    deadline = time.monotonic() + seconds
    while threads.are_busy() and time.monotonic() < deadline and not threads.heartbeat.stuck:
        if signals.at_once.wait(CHECK_SECONDS):
            return


def _give_back(settings: Settings, in_flight: InFlightJobs) -> bool:
    """Put the jobs in flight back into the queue if Redis answers. Returns whether there were any."""
    in_flight.wait_idle(GIVE_BACK_SECONDS)  # a slot may be taking a job at this moment
    left = in_flight.current()
    with (
        suppress(RedisError),
        connect_with_timeout(settings, GIVE_BACK_SECONDS).pipeline(transaction=False) as pipeline,
    ):
        for job in left:
            JobLog(log, job.lease.job_id).info("goes back into the queue", extra={"event": "requeued"})
            leases.give_back(pipeline, job.lease, "worker_stopping")
        pipeline.execute()
    return bool(left)


def _exit_now(code: int) -> NoReturn:
    """End the process without waiting for its threads, because the results of their work are not needed any more."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _describe(name: str, context: WorkerContext, in_flight: InFlightJobs) -> Worker:
    """Return the worker's record for Redis."""
    ready, served = context.models.ready(), context.label_watcher.served_digests()
    return Worker(
        name=name,
        state="stopping" if in_flight.closed else "ready",
        device=context.device.name,
        kind=context.device.kind,
        memory_used=context.memory.used,
        memory_total=context.memory.total,
        models=tuple(map(str, ready)),
        digests=tuple(model.key for model in ready),
        on_request=tuple(sorted(context.models.unloaded(served))),
        troubles=tuple(context.label_watcher.troubles.values()),
        weights_budget=context.models.budget,
        weights_served=context.models.bytes_of(served),
        slots=context.settings.slots,
        jobs=tuple(job.lease.job_id for job in in_flight.current()),
    )


def prepare(settings: Settings) -> WorkerContext:
    """Open connections, start the device thread and the decoders, and load the models that are to be preloaded.

    Raises QueueUnavailable, StoreUnavailable, ModelError, Unconfined or SettingsError.
    """
    _check_redis(settings)
    device = choose(settings.device)
    log.info("device: %s", device)
    store, thread = Store(settings), DeviceThread()
    decoders = Decoders(min(settings.slots, cores.count()), settings.max_input_pixels(2))
    decoders.start()
    models = ModelCache(settings, store, device, thread, decoders)
    memory = Memory(device)
    label_watcher = LabelWatcher(settings, store, models, memory)
    if settings.cache_folder:
        prune(settings.cache_folder)
    else:
        log.warning("UPRES_CACHE_DIR is not set, and this user has no home folder: model files are not kept.")
        os.environ["HOME"] = os.devnull  # OpenVINO fails without a home folder, but needs none
    try:
        for name in settings.preloaded:
            label_watcher.prepare(name)
    except RedisError as error:
        raise QueueUnavailable(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error
    return WorkerContext(
        connection=connect(settings),
        store=store,
        models=models,
        thread=thread,
        label_watcher=label_watcher,
        decoders=decoders,
        encoders=Encoders(settings.slots),
        ended_jobs=EndedJobs(settings),
        outbox_thread=OutboxThread(),
        settings=settings,
        device=device,
        memory=memory,
        budget=MemoryBudget(int(host_memory()[0] * SHARE)),
    )


def _check_redis(settings: Settings) -> None:
    """Raise QueueUnavailable unless Redis answers: checked first, because loading a model may take minutes."""
    try:
        with connect_with_timeout(settings) as connection:
            connection.ping()
    except RedisError as error:
        raise QueueUnavailable(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error


class Signals:
    """The first SIGTERM or SIGINT asks to stop after the jobs in flight, the second to stop at once."""

    def __init__(self) -> None:
        self.stop = SignalFlag()
        self.at_once = SignalFlag()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        (self.at_once if self.stop.is_set else self.stop).is_set = True


class SignalFlag:
    """A flag that a signal handler may set. A threading.Event can deadlock when a handler sets it during its `wait`."""

    def __init__(self) -> None:
        self.is_set = False

    def wait(self, seconds: float) -> bool:
        """Return whether the flag is set; if it is not, sleep for `seconds` first."""
        if not self.is_set:
            time.sleep(seconds)
        return self.is_set
