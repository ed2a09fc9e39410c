"""What the device thread does when memory runs out: smaller batches first, then smaller windows; and what is kept."""

import weakref
from collections.abc import Sequence
from typing import cast

import pytest
from redis import Redis

from tests.unit.test_batching import Scripted, window
from tests.unit.test_device_errors import submit
from tests.unit.test_device_errors import thread as thread
from upres.core.errors import DeviceOutOfMemory
from upres.worker.engine.compute import Finish, OutOfMemory, Pixels
from upres.worker.engine.device import Device
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.limits import Limits
from upres.worker.model import Model
from upres.worker.remembered_limits import remember


class Cramped(Scripted):
    """A device whose memory holds so many pixels at once."""

    def __init__(self, pixels: int) -> None:
        super().__init__(self._check)
        self.pixels, self.failures = pixels, 0

    def _check(self, windows: Sequence[Pixels]) -> OutOfMemory | None:
        if sum(one[..., 0].size for one in windows) <= self.pixels:
            return None
        self.failures += 1
        return OutOfMemory("short")


def test_batches_become_smaller_before_windows_do(thread: DeviceThread) -> None:
    """Eight windows of 64 pixels fit three at a time: the windows keep their size, and the limit is found once."""
    device, limits, changes = Cramped(200), Limits(8, 8 * 64, 4), []
    limits.on_change = lambda: changes.append((limits.tile, limits.batch_pixels(2)))
    for _ in range(2):
        device.gate.clear()
        first = submit(thread, device, limits, window(9))
        futures = [submit(thread, device, limits, window(number)) for number in range(8)]
        device.gate.set()
        assert first.result(20)[0, 0, 0] == 9
        assert [int(future.result(20)[0, 0, 0]) for future in futures] == list(range(8))
    assert changes == [(8, 256), (8, 128)]
    assert limits.tile == 8
    assert limits.networks == {2: 128}
    assert [count for count in device.batches if count * 64 > 200] == [8, 4, 4], "in the first round alone"


def test_a_batch_that_fails_at_its_end_lets_go_of_its_memory_before_it_is_tried_again(thread: DeviceThread) -> None:
    """What waits for a batch holds its tensors: the retry would lack their memory."""

    class Held:
        """A tensor on the device."""

    held: list[weakref.ref[Held]] = []
    alive: list[int] = []

    class Late(Scripted):
        def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
            alive.append(sum(one() is not None for one in held))
            done, tensor = super().start(factor, windows)(), Held()
            held.append(weakref.ref(tensor))

            def finish() -> Pixels:
                if len(windows) > 1:
                    raise OutOfMemory(f"short of memory: {tensor}")
                return done

            return finish

    device, limits = Late(), Limits(8, 4 * 64, 4)
    device.gate.clear()
    first = submit(thread, device, limits, window(9))
    futures = [submit(thread, device, limits, window(number)) for number in range(4)]
    device.gate.set()
    assert [int(future.result(20)[0, 0, 0]) for future in (first, *futures)] == [9, 0, 1, 2, 3]
    assert len(alive) > 5
    assert not any(alive), "a batch began while the tensors of a failed one were held"


def test_a_window_that_does_not_fit_alone_is_split(thread: DeviceThread) -> None:
    device, limits = Cramped(20), Limits(8, 64, 2)
    assert (submit(thread, device, limits, window(7)).result(20) == 7).all()
    assert limits.tile == 4


def test_after_a_window_did_not_fit_alone_its_parts_are_not_packed_together_again(thread: DeviceThread) -> None:
    device, limits, lane = Cramped(20), Limits(8, 640, 2), thread.open_lane()
    assert (submit(thread, device, limits, window(7), lane).result(20) == 7).all()
    failed = device.failures
    device.gate.clear()
    futures = [submit(thread, device, limits, window(number, limits.tile), lane) for number in range(8)]
    device.gate.set()
    assert [int(future.result(20)[0, 0, 0]) for future in futures] == list(range(8))
    assert (device.failures, limits.networks) == (failed, {2: 16})


def test_a_device_without_any_memory_fails_the_job_so_that_it_can_be_tried_again(thread: DeviceThread) -> None:
    with pytest.raises(DeviceOutOfMemory):
        submit(thread, Cramped(0), Limits(8, 64, 2), window(7)).result(20)
    assert thread.lost is None


def test_limits_of_networks_are_separate_and_never_grow() -> None:
    limits = Limits(640, 1000, 16)
    limits.limit_batch(4, 400)
    limits.limit_batch(4, 900)
    limits.limit_tile(1000)
    assert (limits.batch_pixels(4), limits.batch_pixels(2), limits.tile) == (400, 1000, 20)
    limits.limit_tile(3)
    assert limits.tile == 16, "smaller windows would be all halo"


def test_the_warm_up_limits_batches_and_windows_to_what_fits_into_free_memory(
    model: Model, thread: DeviceThread
) -> None:
    class Small(Scripted):
        def largest_batch(self, factor: int) -> int | None:
            return 200 * 200 + 5

    engine = Engine(model.manifest, Small(), thread, 640)
    engine.warm_up()
    assert (engine.tile, engine.limits.batch_pixels(4), engine.limits.batch_pixels(2)) == (200, 40005, 40005)


class Memory(dict[str, str]):
    """Redis, as far as limits are remembered in it."""

    def set(self, key: str, value: str, ex: int) -> None:
        self[key] = value


def test_limits_that_are_remembered_leave_windows_as_large_as_they_were(model: Model, thread: DeviceThread) -> None:
    """Two narrow windows together did not fit; each alone did, though one side is longer than the batch's root."""
    redis, device = Memory(), Device("cuda", "GPU", 8, 8)
    first, later = (Engine(model.manifest, Scripted(), thread, 640) for _ in range(2))
    remember(cast(Redis, redis), device, model, first)
    first.limits.batch_failed(4, 2, 640 * 100)
    remember(cast(Redis, redis), device, model, later)
    assert (later.tile, later.limits.batch_pixels(4), later.limits.batch_pixels(2)) == (640, 64000, 10**9)
