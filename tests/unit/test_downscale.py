"""What the network made becomes smaller, in bands, in linear light: by pixels, against the whole image at once."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.paths import SAMPLES
from upres.core.sizes import Size
from upres.worker.imaging import downscale
from upres.worker.imaging.downscale import downscaled
from upres.worker.samples import Samples

DEPTHS = [np.uint8, np.uint16]


def in_bands(image: Samples, rows: int) -> Iterator[Samples]:
    yield from (image[top : top + rows] for top in range(0, len(image), rows))


def smaller(image: Samples, size: Size, rows: int = 10**6) -> Samples:
    return np.concatenate(list(downscaled(in_bands(image, rows), (image.shape[1], image.shape[0]), size)))


def in_light(levels: np.ndarray, most: int) -> np.ndarray:
    """The formula of sRGB, written once more."""
    part = levels / most
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)), st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
    st.integers(1, 40), st.sampled_from([3, 4]), st.sampled_from(DEPTHS),
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_bands_give_the_pixels_of_the_whole_image(
    made: Size, shares: tuple[float, float], rows: int, channels: int, kind: type[np.unsignedinteger]
) -> None:
    image = np.random.default_rng(7).integers(0, np.iinfo(kind).max + 1, (made[1], made[0], channels)).astype(kind)
    size = (max(1, round(made[0] * shares[0])), max(1, round(made[1] * shares[1])))
    whole = smaller(image, size)
    assert (whole.shape, whole.dtype) == ((size[1], size[0], channels), image.dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downscale, "SAMPLES", 1)  # one row of the result at a time
        assert np.abs(smaller(image, size, rows).astype(int) - whole.astype(int)).max() <= 1


def test_a_network_factor_passes_unchanged() -> None:
    band = np.zeros((2, 3, 3), np.uint8)
    assert next(downscaled([band], (3, 2), (3, 2))) is band


@pytest.mark.parametrize("kind", DEPTHS)
def test_every_flat_level_stays_what_it_is(kind: type[np.unsignedinteger]) -> None:
    levels, curve = np.arange(np.iinfo(kind).max + 1, dtype=kind), downscale._curve(np.dtype(kind))
    assert (curve.back(curve.light[levels]) == levels).all()
    for level in levels[:: 51 if kind is np.uint8 else 997]:
        assert (smaller(np.full((7, 9, 4), level, kind), (5, 3)) == level).all()


def test_gray_stays_neutral_and_ends_of_the_scale_stay() -> None:
    gray = np.repeat(np.random.default_rng(1).integers(0, 256, (50, 60, 1)).astype(np.uint8), 3, axis=2)
    found = smaller(gray, (41, 23))
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("kind", DEPTHS)
def test_light_is_averaged(kind: type[np.unsignedinteger]) -> None:
    most = np.iinfo(kind).max
    columns = np.zeros((40, 40, 3), kind)
    columns[:, ::2] = most
    found = smaller(columns, (10, 10))[5, 2:-2, 0]
    assert np.abs(in_light(found.astype(float), most) - 0.5).max() < 0.02
    with Image.open(SAMPLES / "chelsea.png") as image:
        photo = np.asarray(image.convert("RGB"))
    made = smaller(photo, (200, 150))
    assert abs(in_light(photo.astype(float), 255).mean() - in_light(made.astype(float), 255).mean()) < 0.002


def test_edges_get_no_halo() -> None:
    edge = np.full((30, 400, 3), 50, np.uint8)
    edge[:, 201:] = 200
    found = smaller(edge, (250, 20))
    assert (found.min(), found.max()) == (50, 200)


@pytest.mark.parametrize("kind", DEPTHS)
def test_a_white_disc_on_filled_colours_stays_white_and_its_alpha_is_averaged(kind: type[np.unsignedinteger]) -> None:
    most = np.iinfo(kind).max
    y, x = np.mgrid[:160, :160]
    alpha = np.where(np.hypot(y - 80, x - 80) < 60, most, 0)
    image = np.dstack([np.full((160, 160, 3), most), alpha]).astype(kind)
    found = smaller(image, (100, 100))
    assert (found[..., :3] == most).all()
    assert abs(found[..., 3].mean() / most - alpha.mean() / most) < 0.001
    assert (found[50, 50, 3], found[0, 0, 3]) == (most, 0)


def test_sixteen_bits_stay_smooth() -> None:
    ramp = np.repeat(np.linspace(0, 65535, 16_384).astype(np.uint16)[None, :, None], 8, axis=0).repeat(3, axis=2)
    found = smaller(ramp, (10_240, 5))[2, :, 0].astype(int)
    assert (np.diff(found) >= 0).all()
    assert len(np.unique(found)) > 10_000


def test_few_rows_are_kept() -> None:
    """A result of 100 megapixels at factor 2.5: 16,000 pixels a row, in bands as large as the engine's."""
    kept = downscale._Rows(np.zeros((256, 8, 3), np.uint8) for _ in range(60))
    for first in range(0, 256 * 59, 30):
        assert len(kept.between(first, first + 40)) == 40
        assert sum(map(len, kept._kept)) <= 256 + 70
    assert downscale.SAMPLES // 16_000 <= 40
