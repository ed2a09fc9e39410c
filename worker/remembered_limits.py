"""Remembers in Redis how large windows and batches may be where memory ran out, for workers that start later."""

import logging
from contextlib import suppress
from typing import Any

from pydantic import Field
from redis import Redis
from redis.exceptions import RedisError

from upres.core import keys
from upres.core.schema import TolerantModel
from upres.core.tolerance import or_none
from upres.worker.engine.device import Device
from upres.worker.engine.engine import Engine
from upres.worker.model import Model

log = logging.getLogger("upres.worker")


class StoredLimits(TolerantModel):
    """The limits of a model on a kind of device (worker/engine/limits.py)."""

    tile: int = Field(ge=1, description="Largest side of a window in input pixels.")
    batches: dict[int, int] = Field(description="Factor of a network → most input pixels in a batch.")


def remember(connection: Redis, device: Device, model: Model, engine: Engine) -> None:
    """Begin with the limits that are stored for this device, memory, model and precision. Store smaller ones later."""
    key = keys.limits(device.name, device.memory_total, model.digest, engine.compute.precision)
    limits = engine.limits
    with suppress(RedisError):
        raw: Any = connection.get(key)
        if raw and (stored := or_none(StoredLimits, raw)):
            limits.restore(stored.tile, stored.batches)

    def store() -> None:
        smaller = StoredLimits(tile=limits.tile, batches=dict(limits.networks))
        what = ", ".join(f"×{factor}: {pixels}" for factor, pixels in smaller.batches.items()) or "as before"
        log.warning("the device ran out of memory; from now on tiles of %d, pixels in a batch %s", limits.tile, what)
        with suppress(RedisError):  # do not delay the device thread; the next worker finds the limits again
            connection.set(key, smaller.model_dump_json(), ex=keys.LIMITS_SECONDS)

    limits.on_change = store
