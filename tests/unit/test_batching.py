"""Batches of windows on a device: no job starves, no window is lost, and only the job that causes an error fails."""

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.devices import under_test
from upres.core.errors import DeviceOutOfMemory
from upres.worker.engine.batching import Batcher
from upres.worker.engine.compute import Compute, Finish, OutOfMemory, Pixels
from upres.worker.engine.device_thread import DeviceThread, Shape, Window
from upres.worker.engine.engine import Engine
from upres.worker.engine.limits import Limits
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model

items = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=60)


def drain(batcher: Batcher[int], limit: int) -> list[list[int]]:
    batches = []
    while (shape := batcher.next_shape()) is not None:
        batches.append(batcher.take(shape, limit))
    return batches


@given(items, st.integers(1, 8))
def test_each_item_is_taken_once_in_lane_order_in_batches_of_one_shape(work: list[tuple[int, int]], limit: int) -> None:
    batcher: Batcher[int] = Batcher()
    for number, (lane, shape) in enumerate(work):
        batcher.add(lane, shape, number)
    batches = drain(batcher, limit)
    assert sorted(number for batch in batches for number in batch) == list(range(len(work)))
    for batch in batches:
        assert 1 <= len(batch) <= limit
        assert len({work[number][1] for number in batch}) == 1
    for lane in range(5):
        mine = [number for batch in batches for number in batch if work[number][0] == lane]
        assert mine == sorted(mine)


@given(st.integers(1, 6), st.integers(1, 8))
def test_a_new_small_job_waits_at_most_one_batch_per_other_job(lanes: int, limit: int) -> None:
    batcher: Batcher[str] = Batcher()
    for lane in range(lanes):
        for _ in range(400):
            batcher.add(lane, lane % 2, "scan")
    batcher.add("late", "small", "thumbnail")
    for waited in range(lanes + 1):
        shape = batcher.next_shape()
        assert shape is not None
        if "thumbnail" in batcher.take(shape, limit):
            assert waited <= lanes
            return
    pytest.fail("the thumbnail starved")


def test_items_of_a_dropped_lane_are_removed() -> None:
    batcher: Batcher[int] = Batcher()
    batcher.add("a", 1, 1)
    batcher.add("b", 1, 2)
    batcher.drop("a")
    batcher.drop("never there")
    assert drain(batcher, 9) == [[2]]


class Scripted:
    """A fake device: it enlarges by repeating pixels, and fails as planned, which a real device cannot do."""

    precision = "none"
    batch_pixels = 10**9
    batches_ahead = 1
    warm_up_side = 8
    seconds: float | None = None

    def __init__(self, fault: Callable[[Sequence[Pixels]], Exception | None] = lambda windows: None) -> None:
        self.fault = fault
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        self.gate.wait(20)
        self.batches.append(len(windows))
        if error := self.fault(windows):
            raise error
        done = np.stack(windows).repeat(factor, 1).repeat(factor, 2)
        return lambda: done

    def probe(self) -> None:
        """The device answers."""

    def largest_batch(self, factor: int) -> int | None:
        return None


def window(value: int, side: int = 8) -> Pixels:
    return np.full((side, side, 3), value, np.uint8)


def submit(thread: DeviceThread, lane: Hashable, device: Compute, pixels: Pixels) -> "Future[Pixels]":
    shape = Shape(device, limits_of(device), 2, pixels.shape[0], pixels.shape[1], 0)
    return thread.submit(lane, Window(pixels, shape, Future()))


LIMITS: dict[object, Limits] = {}


def limits_of(device: Compute) -> Limits:
    """The same limits for each window of a device, because only windows with the same ones share a batch."""
    return LIMITS.setdefault(device, Limits(640, device.batch_pixels))


def test_tiles_of_several_jobs_share_a_batch() -> None:
    device = Scripted()
    device.gate.clear()
    thread = DeviceThread()
    lanes = [thread.open_lane() for _ in range(5)]
    first = submit(thread, lanes[0], device, window(9))
    futures = [submit(thread, lane, device, window(number)) for number, lane in enumerate(lanes)]
    device.gate.set()
    assert [int(future.result(20)[0, 0, 0]) for future in futures] == [0, 1, 2, 3, 4]
    assert first.result(20)[0, 0, 0] == 9
    assert len(device.batches) < 6
    assert sum(device.batches) == 6
    assert thread.stats.tiles == 6
    assert thread.stats.batches == len(device.batches)
    thread.close()


class Pipelined(Scripted):
    """A fake device that computes one batch while the host prepares the next one, as CUDA does."""

    batch_pixels = 1
    batches_ahead = 2

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0
        self.most = 0

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        enlarged = super().start(factor, windows)()
        self.under_way += 1
        self.most = max(self.most, self.under_way)

        def finish() -> Pixels:
            self.under_way -= 1
            return enlarged

        return finish


def test_a_pipelined_device_computes_two_batches_at_once_and_loses_none() -> None:
    device = Pipelined()
    device.gate.clear()
    thread = DeviceThread()
    lane = thread.open_lane()
    futures = [submit(thread, lane, device, window(number)) for number in range(20)]
    device.gate.set()
    assert [int(future.result(20)[0, 0, 0]) for future in futures] == list(range(20))
    assert device.most == 2
    assert device.under_way == 0
    thread.close()


def test_only_the_job_that_causes_the_error_fails_in_a_batch() -> None:
    device = Scripted(lambda windows: ValueError("bad") if any((w == 3).any() for w in windows) else None)
    device.gate.clear()
    thread = DeviceThread()
    lanes = [thread.open_lane() for _ in range(5)]
    futures = [submit(thread, lane, device, window(number)) for number, lane in enumerate(lanes)]
    device.gate.set()
    for number, future in enumerate(futures):
        if number == 3:
            with pytest.raises(ValueError, match="bad"):
                future.result(20)
        else:
            assert (future.result(20) == number).all()
    assert thread.lost is None
    thread.close()


class Small(TorchCompute):
    """A real network that raises OutOfMemory for a batch of more than `pixels` input pixels."""

    def __init__(self, model: Model, pixels: int) -> None:
        super().__init__(model, under_test().kind, "float32")
        self._pixels = pixels

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        if sum(window.shape[0] * window.shape[1] for window in windows) > self._pixels:
            raise OutOfMemory("pretended")
        return super().start(factor, windows)


@pytest.mark.device
def test_out_of_memory_shrinks_the_tile_and_keeps_pixels_within_one_level(model: Model) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 260, 3), np.uint8)
    thread = DeviceThread()
    roomy, tight = (Engine(model.manifest, Small(model, pixels), thread, 240) for pixels in (10**9, 130 * 130))
    shrunk: list[int] = []
    tight.limits.on_change = lambda: shrunk.append(tight.tile)
    expected, found = roomy.upscale(image, 2), tight.upscale(image, 2)
    assert np.abs(expected.astype(int) - found).max() <= 1
    assert shrunk
    assert tight.tile == min(shrunk) < 240
    assert np.abs(tight.upscale(image, 2).astype(int) - expected).max() <= 1
    thread.close()


@pytest.mark.device
def test_too_little_memory_for_any_tile_raises_device_out_of_memory(model: Model) -> None:
    with DeviceThread() as thread, pytest.raises(DeviceOutOfMemory):
        Engine(model.manifest, Small(model, 100), thread).upscale(np.zeros((200, 200, 3), np.uint8), 2)


def test_two_models_share_a_device_but_never_a_batch() -> None:
    one, other = Scripted(), Scripted()
    one.gate.clear()
    with DeviceThread() as thread:
        lanes = [thread.open_lane() for _ in range(4)]
        futures = [submit(thread, lane, (one, other)[n % 2], window(n)) for n, lane in enumerate(lanes * 5)]
        one.gate.set()
        assert [int(future.result(20)[0, 0, 0]) for future in futures] == list(range(20))
    assert sum(one.batches) == sum(other.batches) == 10
