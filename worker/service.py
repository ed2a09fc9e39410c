"""A worker's life: model from the store, network on the device, warm; only then jobs, until it is told to stop."""

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

from redis.exceptions import RedisError

from core import keys, leases
from core.errors import QueueUnavailable
from core.queue import connect, connect_quickly
from core.settings import Settings
from core.storage import Store
from core.workers import Worker
from worker import compute, job, registry
from worker.device import choose
from worker.encode import Encoders
from worker.engine import TILE, Engine
from worker.keeper import Keeper
from worker.slots import Hands, Hold, Slot

log = logging.getLogger("upres.worker")

STOPPED, FAILED, DEVICE_LOST = 0, 1, 75
"""Exit codes: told to stop; could not start; the device broke down or hangs (EX_TEMPFAIL: start again)."""
WATCH_SECONDS = 0.1


def serve(settings: Settings) -> int:
    """Prepare, report, and work until SIGTERM or SIGINT, or until the device is lost.

    Then the jobs in hand have `stop_seconds` to be finished; what is left is put back into the queue. The exit
    code: STOPPED or DEVICE_LOST.
    """
    parts = prepare(settings)
    hands = Hands()
    signals = Signals()
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    slots = [Slot(f"{name}-{number}", settings, hands, parts) for number in range(settings.slots)]
    keeper = Keeper(settings, hands, partial(_describe, name, parts, hands))
    for thread in (keeper, *slots):
        thread.start()
    log.info("%s takes jobs, %d at a time", name, len(slots))
    while not (signals.stop.wait(WATCH_SECONDS) or hands.closed or keeper.stuck):
        pass
    hands.close()
    with suppress(RedisError):
        keeper.tell()
    _finish(slots, keeper, signals, settings.stop_seconds)
    left = hands.held()
    _give_back(settings, left)
    with suppress(RedisError):
        keeper.close()
    stats = parts.engine.stats
    log.info(
        "stopped; %d tiles in %d batches, device busy %.0f %%", stats.tiles, stats.batches, 100 * stats.busy_share()
    )
    code = DEVICE_LOST if parts.engine.lost or keeper.stuck else STOPPED
    if left:
        _leave(code)
    return code


def _finish(slots: list[Slot], keeper: Keeper, signals: "Signals", seconds: float) -> None:
    """Wait for the jobs in hand, until the time is up, a second signal comes, or one of them hangs."""
    deadline = time.monotonic() + seconds
    while any(slot.is_alive() for slot in slots) and time.monotonic() < deadline and not keeper.stuck:
        if signals.at_once.wait(WATCH_SECONDS):
            return


def _give_back(settings: Settings, left: list[Hold]) -> None:
    """Into the queue again, each with the attempts it has left."""
    connection = connect_quickly(settings)
    for hold in left:
        log.info("job %s goes back into the queue", hold.lease.job_id)
        with suppress(RedisError):  # its lease runs out then
            leases.give_back(connection, hold.lease, "worker_stopping")


def _leave(code: int) -> NoReturn:
    """End the process although its threads are at work: nobody waits for what they do."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _describe(name: str, parts: job.Parts, hands: Hands) -> Worker:
    manifest = parts.model.manifest
    return Worker(
        name=name,
        state="stopping" if hands.closed else "ready",
        device=parts.device,
        model=f"{manifest.name} {manifest.version}",
        slots=parts.settings.slots,
        jobs=tuple(hold.lease.job_id for hold in hands.held()),
    )


def prepare(settings: Settings) -> job.Parts:
    """Everything a job needs, loaded and warm.

    Raises QueueUnavailable, StoreUnavailable, ModelError or SettingsError.
    """
    begin = time.perf_counter()
    _check_queue(settings)
    device = choose(settings.device)
    log.info("device: %s", device)
    store = Store(settings)
    model = registry.pull(store, settings.model, settings.cache_dir)
    parts = job.Parts(
        connection=connect(settings),
        store=store,
        engine=Engine(model.manifest, compute.choose(model, device.torch, settings.cache_dir.expanduser())),
        encoders=Encoders(settings.slots),
        model=model,
        settings=settings,
        device=device.name,
    )
    _remember_tile(parts)
    parts.engine.warm_up()
    log.info(
        "model %s %s ready in %s after %.1f s (%s)",
        model.manifest.name,
        model.manifest.version,
        parts.engine.compute.precision,
        time.perf_counter() - begin,
        model.digest[:12],
    )
    return parts


def _remember_tile(parts: job.Parts) -> None:
    """Begin with the tile size that fitted last time; note it when a smaller one is found."""
    key = keys.tile(parts.device, parts.model.digest, parts.engine.compute.precision)
    parts.engine.tile = min(TILE, int(parts.connection.get(key) or TILE))

    def remember(tile: int) -> None:
        log.warning("the device ran out of memory: tiles of %d pixels from now on", tile)
        parts.connection.set(key, tile, ex=keys.TILE_SECONDS)

    parts.engine.on_shrink = remember


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
        self.stop = threading.Event()
        self.at_once = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            self.at_once.set()
        else:
            log.info("stopping after the jobs in hand; once more to give them back at once")
            self.stop.set()
