"""The engine on the real model and real photos."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.quality import PAIRS, measure
from core.errors import ModelError
from tests.conftest import SAMPLES
from worker.engine import Engine
from worker.registry import Model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine(model: Model) -> Engine:
    return Engine(model, CPU)


@pytest.fixture(scope="module")
def coffee() -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").crop((200, 150, 330, 240)))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_tiled_equals_untiled_to_the_grey_level(model: Model, factor: int, coffee: np.ndarray) -> None:
    small = coffee[:40, :50] if factor == 8 else coffee
    whole = Engine(model, CPU, tile=1000).upscale(small, factor)
    tiled = Engine(model, CPU, tile=96).upscale(small, factor)
    assert tiled.shape == (small.shape[0] * factor, small.shape[1] * factor, 3)
    difference = np.abs(tiled.astype(int) - whole.astype(int))
    # Two roundings of nearly equal floats may fall on different sides of a half.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_every_tile_is_told_once(engine: Engine, coffee: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    engine.upscale(coffee[:40, :100], 8, lambda done, total: told.append((done, total)))
    # 4 on 40×100 is one tile; 2 on 160×400 two.
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_raising_listener_stops_the_work(engine: Engine, coffee: np.ndarray) -> None:
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        engine.upscale(coffee, 8, stop)
    assert told == [1]


def test_flat_colour_stays_flat(engine: Engine) -> None:
    gray = np.full((20, 30, 3), 128, np.uint8)
    assert np.abs(engine.upscale(gray, 4)[20:-20, 20:-20].astype(int) - 128).max() <= 2


def test_a_factor_the_model_cannot_make_is_an_error(model: Model) -> None:
    only_two = model._replace(manifest=model.manifest.model_copy(update={"networks": model.manifest.networks[1:]}))
    engine = Engine(only_two, CPU)
    assert [network.factor for network in only_two.manifest.chain(8)] == [2, 2, 2]
    with pytest.raises(ModelError, match="factor 3"):
        engine.upscale(np.zeros((8, 8, 3), np.uint8), 3)


def test_weights_that_do_not_fit_their_manifest_are_an_error(model: Model) -> None:
    swapped = model._replace(weights={2: model.weights[4], 4: model.weights[2]})
    with pytest.raises(ModelError, match="does not fit"):
        Engine(swapped, CPU)


# Measured 27.739 and 36.151 dB.
@pytest.mark.parametrize(("folder", "image", "least"), [("Set5_x4", "img_003", 27.72), ("Set5_x2", "img_005", 36.13)])
def test_quality_on_the_standard_pairs(engine: Engine, folder: str, image: str, least: float) -> None:
    factor = int(folder[-1])
    pair = pairs() / folder / f"{image}_SRF_{factor}_LR.png"
    ours, bicubic = measure(engine, pair, factor)
    assert ours > least
    assert ours > bicubic + 2


def pairs() -> Path:
    """The benchmark pairs; they are not part of the project, but CI has them."""
    if not PAIRS.exists() and not os.environ.get("CI"):
        pytest.skip(f"no benchmark pairs in {PAIRS}")
    return PAIRS
