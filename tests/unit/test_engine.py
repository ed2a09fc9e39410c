"""The engine enlarges real photos with the bundled model."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.support.devices import KIND, equal, torch_on_it, under_test
from tests.support.paths import SAMPLES, pairs
from upres.core import tiling
from upres.core.errors import ModelError
from upres.models.pairs import measure
from upres.worker.engine.compute import Compute
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.runtimes import choose
from upres.worker.model import Model

pytestmark = pytest.mark.device


@pytest.fixture(scope="module", params=["chosen", "torch"])
def compute(request: pytest.FixtureRequest, model: Model) -> Compute:
    """The runtime that a worker chooses on the device, and torch: on a CPU with the code that CUDA uses."""
    if request.param == "chosen":
        return choose(model, under_test())
    return torch_on_it(model, "bfloat16" if KIND == "cpu" else "float32")


@pytest.fixture(scope="module")
def device() -> Iterator[DeviceThread]:
    with DeviceThread() as thread:
        yield thread


@pytest.fixture(scope="module")
def engine(model: Model, compute: Compute, device: DeviceThread) -> Engine:
    engine = Engine(model.manifest, compute, device)
    engine.limits.tile = 96
    return engine


@pytest.fixture(scope="module")
def coffee() -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").crop((200, 150, 330, 240)))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_tiled_and_untiled_results_differ_by_at_most_one_level(
    model: Model, device: DeviceThread, engine: Engine, factor: int, coffee: np.ndarray
) -> None:
    small = coffee[:40, :50] if factor == 8 else coffee
    untiled = Engine(model.manifest, engine.compute, device, tile=1000)
    whole, tiled = untiled.upscale(small, factor), engine.upscale(small, factor)
    assert tiled.shape == (small.shape[0] * factor, small.shape[1] * factor, 3)
    assert np.abs(tiled.astype(int) - whole.astype(int)).max() <= 1


def test_concatenated_bands_equal_the_whole_image(engine: Engine, coffee: np.ndarray) -> None:
    tall = coffee.swapaxes(0, 1)
    bands = list(engine.bands(tall, 2))
    assert len(bands) > 1
    assert equal(np.concatenate(bands), engine.upscale(tall, 2))


def test_concurrent_jobs_get_the_pixels_of_single_jobs_within_one_level(engine: Engine, coffee: np.ndarray) -> None:
    pieces = [coffee[y : y + 40 + y % 3 * 30, x : x + 50 + x % 2 * 60] for y in (0, 10, 20) for x in (0, 15, 20)]
    alone = [engine.upscale(piece, 4) for piece in pieces]
    with ThreadPoolExecutor(8) as pool:
        for order in (pieces, pieces[::-1]):
            together = list(pool.map(lambda piece: engine.upscale(piece, 4), order))
            for one, other in zip(together, alone, strict=True):
                assert np.abs(one.astype(int) - other).max() <= 1
            alone.reverse()


def test_progress_is_reported_once_per_tile(engine: Engine, coffee: np.ndarray) -> None:
    received: list[tuple[int, int]] = []
    engine.upscale(coffee[:36, :40], 8, lambda done, total: received.append((done, total)))
    total = len(tiling.plan(36, 40, 96, 35)) + len(tiling.plan(144, 160, 96, 35))
    assert received == [(done, total) for done in range(1, total + 1)]


def test_an_error_in_the_progress_callback_stops_the_engine(engine: Engine, coffee: np.ndarray) -> None:
    received: list[int] = []

    def stop(done: int, total: int) -> None:
        received.append(done)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        engine.upscale(coffee, 8, stop)
    assert received == [1]


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [(40, 50), (3, 70), (1, 1)])
def test_an_image_of_one_colour_keeps_its_colour_up_to_its_edges(
    engine: Engine, factor: int, size: tuple[int, int]
) -> None:
    for colour in ((0, 0, 0), (255, 255, 255), (128, 128, 128), (0, 255, 0), (255, 0, 255), (20, 240, 130)):
        flat = np.full((*size, 3), colour, np.uint8)
        assert np.abs(engine.upscale(flat, factor).astype(int) - colour).max() <= 2


def test_the_edges_of_tiles_and_previews_match_those_of_the_whole_image(
    model: Model, device: DeviceThread, engine: Engine, coffee: np.ndarray
) -> None:
    """The image has flat borders, uneven ones, and some between."""
    framed = np.pad(coffee[:60, :90], ((25, 5), (0, 30), (0, 0)), constant_values=255)
    framed[-12:, -20:] = 250 + np.random.default_rng(0).integers(0, 6, (12, 20, 3))
    whole = Engine(model.manifest, engine.compute, device, tile=1000).upscale(framed, 2)
    assert (whole[:8, :] >= 254).all()
    shown = np.zeros_like(whole)

    def show(top: int, left: int, piece: np.ndarray) -> None:
        shown[top : top + piece.shape[0], left : left + piece.shape[1]] = piece

    tiled = np.concatenate(list(engine.bands(framed, 2, on_piece=show)))
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    assert (shown == tiled).all()


def test_a_factor_that_the_model_does_not_support_is_an_error(
    model: Model, compute: Compute, device: DeviceThread
) -> None:
    only_two = model._replace(manifest=model.manifest.model_copy(update={"networks": model.manifest.networks[1:]}))
    engine = Engine(only_two.manifest, compute, device)
    assert only_two.manifest.factors == (2, 4, 8)
    assert [network.factor for network in only_two.manifest.chain(8)] == [2, 2, 2]
    with pytest.raises(ModelError, match="factor 3"):
        engine.upscale(np.zeros((8, 8, 3), np.uint8), 3)


def test_weights_that_do_not_match_the_manifest_are_an_error(weights: Model) -> None:
    four, two = (network.file for network in weights.manifest.networks)
    swapped = weights._replace(files={four: weights.files[two], two: weights.files[four]})
    with pytest.raises(ModelError, match="does not fit"):
        choose(swapped, under_test())


def test_half_precision_changes_the_quality_by_at_most_0_01_decibel(
    model: Model, compute: Compute, device: DeviceThread
) -> None:
    """The quality gate: compares the mean quality on the Set5 images with that of float32."""
    for factor in (2, 4):
        paths = sorted((pairs() / f"Set5_x{factor}").glob("*_LR.png"))
        figures = []
        for one in (torch_on_it(model), compute):
            engine = Engine(model.manifest, one, device)
            figures.append(np.mean([measure(engine.upscale, path, factor)[0] for path in paths]))
        assert abs(figures[1] - figures[0]) <= 0.01


# The limits are slightly below the measured values, 27.739 and 36.151 dB.
@pytest.mark.parametrize(("folder", "image", "least"), [("Set5_x4", "img_003", 27.72), ("Set5_x2", "img_005", 36.13)])
def test_quality_on_benchmark_pairs_is_above_the_limit_and_bicubic(
    engine: Engine, folder: str, image: str, least: float
) -> None:
    factor = int(folder[-1])
    pair = pairs() / folder / f"{image}_SRF_{factor}_LR.png"
    ours, bicubic = measure(engine.upscale, pair, factor)
    assert ours > least
    assert ours > bicubic + 2
