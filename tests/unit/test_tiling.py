"""Tiles: their cores cover the image exactly once, and the tiled result equals the untiled result."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upres.core import tiling
from upres.core.tiling import TILE
from upres.worker.engine import networks, tiles
from upres.worker.model import Model

sides = st.integers(1, 200)
sizes_and_halos = st.integers(0, 12).flatmap(lambda halo: st.tuples(st.integers(2 * halo + 1, 90), st.just(halo)))


@given(height=sides, width=sides, size_and_halo=sizes_and_halos)
def test_cores_cover_the_image_exactly_once(height: int, width: int, size_and_halo: tuple[int, int]) -> None:
    covered = np.zeros((height, width), int)
    for tile in tiling.plan(height, width, *size_and_halo):
        covered[slice(*tile.core_rows), slice(*tile.core_columns)] += 1
    assert (covered == 1).all()


@given(height=sides, width=sides, size_and_halo=sizes_and_halos)
def test_all_windows_of_an_image_have_one_shape(height: int, width: int, size_and_halo: tuple[int, int]) -> None:
    tiles = tiling.plan(height, width, *size_and_halo)
    shapes = {(rows.stop - rows.start, columns.stop - columns.start) for rows, columns, _, _ in tiles}
    assert len(shapes) == 1


@given(height=sides, width=sides, halos=st.integers(0, 3), grid=st.integers(1, 24), slack=st.integers(0, 40))
def test_windows_start_at_multiples_of_the_grid(height: int, width: int, halos: int, grid: int, slack: int) -> None:
    halo, size = halos * grid, (2 * halos + 1) * grid + slack
    covered = np.zeros((height, width), int)
    for tile in tiling.plan(height, width, size, halo, grid):
        covered[slice(*tile.core_rows), slice(*tile.core_columns)] += 1
        axes = [(tile.window_rows, tile.core_rows, height), (tile.window_columns, tile.core_columns, width)]
        for window, core, length in axes:
            assert window.start % grid == 0
            assert window.stop % grid == 0 or window.stop == length
            assert window.stop - window.start <= size
            assert window.start == 0 or core.start - window.start >= halo
            assert window.stop == length or window.stop - core.stop >= halo
    assert (covered == 1).all()


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (2160, 3840), (4000, 6000), (1200, 1804), (1000, 1000)])
def test_tiles_of_large_images_compute_at_most_30_percent_more_pixels(height: int, width: int) -> None:
    tiles = tiling.plan(height, width, TILE, 35)
    rows, columns, _, _ = tiles[0]
    computed = len(tiles) * (rows.stop - rows.start) * (columns.stop - columns.start)
    assert computed / (height * width) <= 1.3


@given(height=sides, width=sides, size_and_halo=sizes_and_halos)
def test_every_core_has_a_full_halo_except_at_the_image_border(
    height: int, width: int, size_and_halo: tuple[int, int]
) -> None:
    size, halo = size_and_halo
    for tile in tiling.plan(height, width, size, halo):
        axes = [(tile.window_rows, tile.core_rows, height), (tile.window_columns, tile.core_columns, width)]
        for window, core, length in axes:
            assert 0 <= window.start < window.stop <= length
            assert window.stop - window.start <= min(size, length)
            assert window.start == 0 or core.start - window.start >= halo
            assert window.stop == length or window.stop - core.stop >= halo


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one torch thread: with two threads, small convolutions mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    factor=st.sampled_from([2, 4]),
    slack=st.integers(1, 20),
    seed=st.integers(0, 2**16),
)
def test_the_tiled_result_equals_the_untiled_result(
    height: int, width: int, factor: int, slack: int, seed: int
) -> None:
    torch.manual_seed(seed)
    network = networks.EDSR(factor, width=4, depth=2).eval()
    halo = 2 * 2 + 3
    image = torch.rand(height, width, 3)

    def enlarge(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
            result: np.ndarray = network(batch)[0].permute(1, 2, 0).numpy()
            return result

    pixels = image.numpy()
    whole = enlarge(pixels)
    tiled = np.full_like(whole, np.nan)
    for tile in tiling.plan(height, width, 2 * halo + slack, halo):
        tiles.paste(tiled, tile, enlarge(tiles.cut(pixels, tile)), factor)
    assert np.abs(tiled - whole).max() <= 1e-5


@pytest.mark.parametrize(("height", "width", "size", "halo"), [(0, 5, 9, 1), (5, 0, 9, 1), (5, 5, 2, 1), (5, 5, 9, -1)])
def test_invalid_tiling_parameters_are_refused(height: int, width: int, size: int, halo: int) -> None:
    with pytest.raises(ValueError, match="cannot tile"):
        tiling.plan(height, width, size, halo)


def test_the_manifest_states_the_receptive_radius_of_the_network(model: Model) -> None:
    """A change of one input pixel changes the output up to the radius, and no further."""
    network = model.manifest.networks[0]
    radius = network.margin
    assert radius == network.receptive_radius
    module = networks.EDSR(2, width=4, depth=network.parameters["depth"]).eval().double()
    for parameter in module.parameters():  # positive weights and no biases: no difference cancels or gets lost
        torch.nn.init.constant_(parameter, 0.1 if parameter.ndim == 4 else 0.0)
    side = 2 * radius + 5
    image = torch.zeros(1, 3, side, side, dtype=torch.float64)
    changed = image.clone()
    changed[0, :, side // 2, side // 2] = 1
    with torch.inference_mode():
        difference = (module(changed) - module(image)).abs().amax(dim=(0, 1))
    rows = difference.amax(dim=1).nonzero().flatten() // 2 - side // 2
    assert int(rows.min()) == -radius
    assert int(rows.max()) == radius
