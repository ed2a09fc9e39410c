"""Flat areas at the edges of images, without a network: which pixels are replaced, and by what."""

import numpy as np
import pytest

from upres.core import tiling
from upres.worker.engine.borders import DEPTH, keep_flat

Pixels = np.ndarray


def corrected(pixels: Pixels, enlarged: Pixels) -> Pixels:
    """The enlargement (factor 2) after the correction, in one tile; that of several tiles must be the same."""
    whole = enlarged.copy()
    height, width = pixels.shape[:2]
    [tile] = tiling.plan(height, width, 1000, 0)
    keep_flat(whole, tile, pixels, 2)
    tiled = np.zeros_like(enlarged)
    for tile in tiling.plan(height, width, 33, 8):
        top, left = tile.window_rows.start * 2, tile.window_columns.start * 2
        window = enlarged[top : tile.window_rows.stop * 2, left : tile.window_columns.stop * 2].copy()
        keep_flat(window, tile, pixels, 2)
        rows, columns = (slice(span.start * 2, span.stop * 2) for span in (tile.core_rows, tile.core_columns))
        tiled[rows, columns] = window[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    assert (tiled == whole).all()
    return whole


def test_a_network_that_changes_colours_leaves_no_frame() -> None:
    enlarged = np.full((100, 120, 3), 180, np.uint8)
    for depth in range(DEPTH * 2):
        enlarged[[depth, -1 - depth]] = enlarged[:, [depth, -1 - depth]] = 150 + depth
    made = corrected(np.full((50, 60, 3), 200, np.uint8), enlarged)
    assert (made == 180).all()


def test_the_known_colour_is_taken_where_the_flat_area_is_narrow_or_the_image_small() -> None:
    pixels = np.full((50, 60, 3), 255, np.uint8)
    pixels[7] = 0  # its area begins with row 3
    made = corrected(pixels, np.full((100, 120, 3), 240, np.uint8))
    assert (made[:6, 20:-20] == 255).all()
    assert (made[6:40, 20:-20] == 240).all()
    for size in ((1, 1), (3, 60), (16, 16)):
        small = np.full((*size, 3), 255, np.uint8)
        made = corrected(small, np.full((size[0] * 2, size[1] * 2, 3), 240, np.uint8))
        assert (made[: DEPTH * 2] == 255).all()


@pytest.mark.parametrize("seed", range(3))
def test_uneven_areas_and_the_inside_are_left_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (50, 60, 3), np.uint8)
    enlarged = random.integers(0, 256, (100, 120, 3), np.uint8)
    assert (corrected(pixels, enlarged) == enlarged).all()
    pixels[:20, :30] = 90
    made = corrected(pixels, enlarged)
    assert (made != enlarged).any()
    inside = slice(DEPTH * 2, -DEPTH * 2)
    assert (made[inside, inside] == enlarged[inside, inside]).all()
    assert (made[-DEPTH * 2 :] == enlarged[-DEPTH * 2 :]).all()
