"""A worker's life: model from the store, network on the device, warm; only then jobs, until it is told to stop."""

import logging
import signal
import socket
import threading
import time
import uuid
from functools import partial
from types import FrameType

from redis.exceptions import RedisError

from core import keys
from core.errors import QueueUnavailable
from core.queue import connect, connect_quickly
from core.settings import Settings
from core.storage import Store
from worker import compute, job, registry
from worker.device import choose
from worker.encode import Encoders
from worker.engine import TILE, Engine
from worker.slots import AllowedJob, Gate, Slot, guarded

log = logging.getLogger("upres.worker")

STOPPED, BROKEN, DEVICE_LOST = 0, 1, 75
"""Exit codes: told to stop; RQ gave up (its log says why); the device broke down (EX_TEMPFAIL: start again)."""
WATCH_SECONDS = 0.2


def serve(settings: Settings) -> int:
    """Prepare, report, and work until SIGTERM or SIGINT; the jobs in hand are finished first.

    The exit code: STOPPED, BROKEN or DEVICE_LOST.
    """
    parts = prepare(settings)
    gate = Gate()
    AllowedJob.functions = {keys.JOB_FUNCTION: guarded(partial(job.run, parts), gate)}
    name = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    slots = [Slot(f"{name}-{number}", settings, gate) for number in range(settings.slots)]
    stop = threading.Event()
    _on_signal(stop)
    for slot in slots:
        slot.start()
    log.info("%s takes jobs, %d at a time", name, len(slots))
    while all(slot.is_alive() for slot in slots) and not stop.wait(WATCH_SECONDS):
        pass
    gate.shut()
    for slot in slots:
        slot.join()
    stats = parts.engine.stats
    log.info(
        "stopped; %d tiles in %d batches, device busy %.0f %%", stats.tiles, stats.batches, 100 * stats.busy_share()
    )
    if parts.engine.lost:
        return DEVICE_LOST
    return STOPPED if stop.is_set() else BROKEN


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
        engine=Engine(model.manifest, compute.choose(model, device.torch)),
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


def _on_signal(stop: threading.Event) -> None:
    """The first SIGTERM or SIGINT stops after the jobs in hand, the second at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        log.info("stopping after the jobs in hand")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
