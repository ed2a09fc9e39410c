"""The ensemble: the average of the eight orientations, window by window, equals that of the whole image."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.support.devices import LEVELS, equal, under_test
from tests.support.paths import SAMPLES
from upres.core.tiling import ORIENTATIONS
from upres.models.folder import photo
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.ensemble import Average, padded, turned, turned_back
from upres.worker.engine.runtimes import choose
from upres.worker.model import Model

pytestmark = pytest.mark.device
Pixels = np.ndarray


@pytest.fixture(scope="module")
def device() -> Iterator[DeviceThread]:
    with DeviceThread() as thread:
        yield thread


@pytest.fixture(scope="module")
def engine(model: Model, device: DeviceThread) -> Engine:
    return Engine(model.manifest, choose(model, under_test()), device)


@pytest.fixture(scope="module")
def coffee() -> Pixels:
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").crop((200, 150, 310, 220)))


def test_the_orientations_are_eight_and_can_be_undone() -> None:
    window = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    made = [turned(window, number) for number in range(ORIENTATIONS)]
    assert len({(one.shape, one.tobytes()) for one in made}) == 8
    for number, one in enumerate(made):
        assert (turned_back(one, number) == window).all()


def test_the_average_is_rounded_once() -> None:
    average = Average()
    for number, value in enumerate((255, 255, 255, 255, 255, 255, 255, 252)):
        average.add(np.full((2, 2, 3), value, np.uint8), number)
    assert (average.rounded() == 255).all()  # 254.625


def test_the_ensemble_is_the_mean_of_eight_enlargements_of_the_whole_image(engine: Engine, coffee: Pixels) -> None:
    alone = [turned_back(engine.upscale(turned(coffee, n).copy(), 2), n).astype(float) for n in range(ORIENTATIONS)]
    made = engine.upscale(coffee, 2, orientations=ORIENTATIONS)
    assert np.abs(made - np.mean(alone, axis=0)).max() <= 0.51 + LEVELS
    assert (made != alone[0]).any()


@pytest.mark.parametrize("factor", [2, 8])
def test_the_tiled_ensemble_equals_the_untiled_one_in_bands_and_from_a_checkpoint(
    model: Model, device: DeviceThread, engine: Engine, coffee: Pixels, factor: int
) -> None:
    tall = coffee.swapaxes(0, 1)
    small = tall if factor == 2 else tall[:26, :16]
    tiled = Engine(model.manifest, engine.compute, device, tile=96)
    received: list[tuple[int, int]] = []
    whole = engine.upscale(small, factor, orientations=ORIENTATIONS)
    bands = list(tiled.bands(small, factor, lambda *tiles: received.append(tiles), orientations=ORIENTATIONS))
    assert np.abs(np.concatenate(bands).astype(int) - whole).max() <= 1
    total = received[-1][1]
    assert received == [(done, total) for done in range(1, total + 1)]
    assert tiled.progress_at(small, factor, 0, ORIENTATIONS) == (0, total)
    assert tiled.progress_at(small, factor, 0)[1] * 8 == total
    first = len(bands[0])
    assert len(bands) > 1
    received.clear()
    rest = list(tiled.bands(small, factor, lambda *tiles: received.append(tiles), first, orientations=ORIENTATIONS))
    assert equal(np.concatenate(rest), np.concatenate(bands)[first:])
    assert received[0][0] == tiled.progress_at(small, factor, first, ORIENTATIONS)[0] + 1


def test_windows_of_a_network_with_a_grid_are_continued_to_it() -> None:
    window = photo(13, 16)
    made = padded(window, 8)
    assert made.shape == (16, 16, 3)
    assert (made[:13] == window).all()
    assert (made[13:] == window[:-4:-1]).all()
    assert padded(window, 1) is window
