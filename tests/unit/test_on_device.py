"""torch on the device of the tests: batches that overlap, the device's clock, memory and golden images."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.support.devices import KIND, equal, torch_on_it, under_test
from upres.worker import golden
from upres.worker.engine import torch_compute
from upres.worker.engine.device import Memory
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.imaging import images
from upres.worker.model import Model

pytestmark = pytest.mark.device


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On a CPU: with two threads, small convolutions mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def compute(model: Model) -> TorchCompute:
    return torch_on_it(model, None)


def test_networks_run_where_and_how_a_worker_runs_them(model: Model, compute: TorchCompute) -> None:
    assert under_test().kind == KIND
    assert {tensor.device.type for tensor in compute._modules[2].parameters()} == {KIND}
    assert compute.precision == torch_compute.best(KIND, model.manifest.networks)


def test_batches_that_overlap_have_the_pixels_of_each_window_alone(compute: TorchCompute) -> None:
    """Uploads, computation and downloads of several batches are under way at once: none reads what another writes."""
    random = np.random.default_rng(0)
    for count, height, width in ((2, 20, 17), (3, 12, 16)):
        batches = [list(random.integers(0, 256, (count, height, width, 3), np.uint8)) for _ in range(3)]
        started = [compute.start(2, batch) for batch in batches]
        for batch, finish in zip(batches, started, strict=True):
            for window, made in zip(batch, finish(), strict=True):
                assert equal(made, compute.start(2, [window])()[0])


def test_after_the_warm_up_a_gpu_knows_its_time_and_memory(model: Model) -> None:
    compute, memory = torch_on_it(model, None), Memory(under_test())
    with DeviceThread() as thread:
        engine = Engine(model.manifest, compute, thread)
        engine.warm_up()
        assert thread.stats.busy_seconds > 0
    memory.refresh()
    assert 0 < memory.used < memory.total
    if KIND == "cuda":
        assert compute.seconds
        assert all((compute.largest_batch(network.factor) or 0) > 100 * 100 for network in model.manifest.networks)
        assert engine.limits.networks.keys() == {2, 4}
    else:
        assert (compute.seconds, compute.largest_batch(2)) == (None, None)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_golden_images_are_right_in_both_precisions(model: Model, precision: str) -> None:
    with DeviceThread() as thread:
        engine = Engine(model.manifest, torch_on_it(model, precision), thread)
        golden.check(model, engine, images.decode)
