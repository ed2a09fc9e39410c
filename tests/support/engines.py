"""An engine with the bundled model on the device of the tests, in the runtime that a worker chooses there."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.devices import under_test
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.runtimes import choose
from upres.worker.model import Model


@contextmanager
def engine_of(model: Model, tile: int) -> Iterator[Engine]:
    """Give an engine for the block, with windows of at most `tile` pixels per side: small images have several."""
    with DeviceThread() as thread:
        engine = Engine(model.manifest, choose(model, under_test()), thread)
        engine.limits.tile = tile
        yield engine
