"""Checks of the workers with their devices and models."""

import math
import socket
from collections.abc import Iterator
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from upres.console.doctor.finding import Finding, fault, ok, warning
from upres.core import served_models, workers
from upres.core.registry import STABLE
from upres.core.settings import Settings
from upres.core.workers import Worker

GPU = Path("/dev/nvidiactl")
"""This file exists on Linux when the NVIDIA driver is loaded."""
FULL = 0.95
"""Share of the device memory in use from which it counts as nearly full."""


def check_workers(redis: Redis, settings: Settings) -> Iterator[Finding]:
    """Check that workers are running, and that one of them has the stable version of the default model loaded."""
    try:
        there = workers.listing(redis)
        offer = served_models.published(redis, settings.model)
    except RedisError as error:
        yield fault("workers", f"Redis does not list them ({error})", "See above.")
        return
    if not there:
        fix = "Start one (python -m upres.worker); a fleet that is scaled to zero starts one for the first job."
        yield warning("workers", "none is running; jobs wait", fix)
        return
    yield ok("workers", f"{len(there)} running, with {sum(worker.slots for worker in there)} slots")
    for worker in there:
        yield _device(worker)
        for trouble in worker.troubles:
            fix = "It serves the version before; its log says more. Check its disk, its memory and UPRES_CACHE_DIR."
            yield warning("models of workers", f"{worker.name}: {trouble}", fix)
        if 0 < worker.weights_budget < worker.weights_served:
            yield _too_small(worker)
    if offer is None or not any(offer.labels[STABLE].digest in worker.digests for worker in there):
        found = f"none has {settings.model} ready; its first job waits until it is loaded"
        yield warning("models of workers", found, "Set UPRES_MODEL to the same value for the function and the workers.")


def _too_small(worker: Worker) -> Finding:
    """The finding that a worker's memory budget does not hold what it serves by default."""
    needed, budget = math.ceil(worker.weights_served / 1e6), worker.weights_budget / 1e6
    found = (
        f"{worker.name}: the stable versions and canaries that it serves take {needed:,} MB, "
        f"{needed - budget:,.1f} MB more than its budget; jobs wait while one is loaded in place of another"
    )
    return warning("memory of models", found, f"Set its UPRES_MODEL_MEGABYTES to {needed} or more (now {budget:g}).")


def _device(worker: Worker) -> Finding:
    used = f", {worker.memory_used / 1e9:.1f} of {worker.memory_total / 1e9:.1f} GB used" if worker.memory_total else ""
    found = f"{worker.name}: {worker.device}{used}"
    if worker.name.startswith(f"{socket.gethostname()}-") and GPU.exists() and worker.kind == "cpu":
        fix = "This machine has an NVIDIA GPU: install torch with CUDA, and do not set UPRES_DEVICE=cpu."
        return fault("device", found, fix)
    if worker.memory_used > FULL * worker.memory_total > 0:
        return warning("device", found, "Its memory is nearly full: fewer UPRES_SLOTS, or less UPRES_MODEL_MEGABYTES.")
    return ok("device", found)
