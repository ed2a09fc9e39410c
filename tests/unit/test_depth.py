"""Samples of 16 bits: the engine keeps them, and PNG files have them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pydantic import ValidationError

from tests.support.devices import LEVELS
from tests.support.engines import engine_of
from tests.support.images import opened
from tests.support.paths import SAMPLES
from tests.support.result_files import result_file
from upres.core import formats
from upres.core.api import JobRequest
from upres.worker.engine.depth import refined
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.imaging.bicubic import bicubic
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Pictures, picture
from upres.worker.imaging.png import PngWriter
from upres.worker.imaging.raster import Raster
from upres.worker.model import Model
from upres.worker.samples import LEVEL, Samples, eight_bits, sixteen_bits

pytestmark = pytest.mark.device
ENCODERS = Encoders(jobs=1)


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[Engine]:
    with engine_of(model, 96) as engine:
        yield engine


def coffee() -> Samples:
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").crop((200, 150, 330, 240)))


def file_of(samples: Samples, rows: Samples, factor: int) -> bytes:
    made = picture(Raster(samples, "png"))
    return ENCODERS.file(Pictures((made,)), [result_file(made, factor, "png")], [rows])


def smooth(channels: int) -> Samples:
    """A gradient with more than 4,096 levels in each channel, differently in each."""
    y, x = np.mgrid[:80, :90]
    planes = [((x * (3 - channel) + y * 90) * 8 + 5000 * channel) % 65536 for channel in range(channels)]
    return np.dstack(planes).astype(np.uint16)


@given(arrays.arrays(np.uint8, (3, 4, 3)))
def test_eight_bits_are_the_same_after_sixteen(samples: Samples) -> None:
    assert (eight_bits(sixteen_bits(samples)) == samples).all()


@given(arrays.arrays(np.uint16, (4, 5, 3)), st.data())
def test_no_sample_differs_by_more_than_a_level_from_what_the_network_made(given: Samples, data: st.DataObject) -> None:
    made = data.draw(arrays.arrays(np.uint8, (8, 10, 3)))
    assert np.abs(refined(made, given, 2).astype(int) - made.astype(int) * LEVEL).max() <= LEVEL


def test_what_has_eight_bits_is_not_changed(engine: Engine) -> None:
    made = coffee()
    assert refined(made, made, 1) is made
    assert engine.upscale(made, 2).dtype == np.uint8


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_photo_of_16_bits_becomes_what_the_one_of_8_becomes(engine: Engine, factor: int) -> None:
    small = coffee()[:20, :24] if factor == 8 else coffee()[:40, :50]
    eight, sixteen = engine.upscale(small, factor), engine.upscale(sixteen_bits(small), factor)
    assert sixteen.dtype == np.uint16
    assert np.abs(sixteen.astype(int) - eight.astype(int) * LEVEL).max() <= LEVEL * (LEVELS + (1 if factor < 8 else 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gradient_of_16_bits_keeps_its_levels_and_is_smoother_than_one_of_8(engine: Engine, channels: int) -> None:
    given = smooth(channels)
    pixels = picture(Raster(given, "png")).pixels
    enlarged, of_8_bits = engine.upscale(pixels, 4), engine.upscale(eight_bits(pixels), 4)
    made = imagecodecs.png_decode(file_of(given, enlarged, 4)).reshape(320, 360, channels)
    exact = np.concatenate(list(bicubic(pixels, (pixels.shape[1] * 4, len(pixels) * 4)))).astype(int)[8:-8, 8:-8]
    assert made.dtype == np.uint16
    for channel in range(channels):
        assert len(np.unique(made[..., channel])) >= 4096
        ours, theirs = made[8:-8, 8:-8, channel].astype(int), of_8_bits[8:-8, 8:-8, channel].astype(int) * LEVEL
        assert np.abs(ours - exact[..., channel]).mean() < np.abs(theirs - exact[..., channel]).mean()
        if channels == 1:
            assert np.abs(ours - exact[..., channel]).mean() < LEVEL / 50


def test_alpha_of_16_bits_is_kept(engine: Engine) -> None:
    given = np.dstack([smooth(3), smooth(1)])
    made = imagecodecs.png_decode(file_of(given, engine.upscale(picture(Raster(given, "png")).pixels, 2), 2))
    assert made.shape == (160, 180, 4)
    assert len(np.unique(made[..., 3])) >= 4096
    given[..., 3] = 65535
    opaque = engine.upscale(picture(Raster(given, "png")).pixels, 2)
    assert (opaque[..., 3] == 65535).all()


def test_tiles_of_16_bits_do_not_show(engine: Engine, model: Model) -> None:
    pixels = sixteen_bits(coffee())
    with DeviceThread() as thread:
        whole = Engine(model.manifest, engine.compute, thread).upscale(pixels, 2)
    assert np.abs(engine.upscale(pixels, 2).astype(int) - whole).max() <= LEVEL


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_files_of_16_bits_are_read_back_exactly(channels: int) -> None:
    random = np.random.default_rng(channels)
    rows = random.integers(0, 65536, (700, 301, channels), np.uint16)  # several slices
    with ThreadPoolExecutor(2) as pool:
        pieces: list[bytes] = []
        writer = PngWriter(301, 700, channels, pool, pieces.append, depth=16)
        for top in range(0, 700, 90):
            writer.write(rows[top : top + 90])
        writer.finish()
    file = b"".join(pieces)
    assert (imagecodecs.png_decode(file).reshape(rows.shape) == rows).all()
    assert opened(file).size == (301, 700)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_formats_of_8_bits_get_8_bits(format: str) -> None:
    whole = picture(Raster(smooth(3), "png"))
    assert formats.result_depth("auto", whole.depth, format) == 8  # type: ignore[arg-type]
    assert formats.result_depth("auto", whole.depth, "png") == 16
    assert formats.result_depth(8, whole.depth, "png") == 8
    assert formats.result_depth(16, 8, "png") == 16
    assert whole.at_depth(8).pixels.dtype == np.uint8
    assert formats.result_format("auto", "jpeg", 16) == "png"


@pytest.mark.parametrize(("depth", "format", "accepted"), [
    (16, "auto", True), ("16", "png", True), (8, "jpeg", True), ("auto", "webp", True),
    (16, "jpeg", False), (16, "webp", False), (12, "png", False), (True, "png", False), ("x", "png", False),
])  # fmt: skip
def test_a_depth_that_the_format_does_not_have_is_refused(depth: object, format: str, accepted: bool) -> None:
    fields = {"image_url": "http://example.org/a.png", "output_format": format, "output_depth": depth}
    if accepted:
        assert JobRequest.model_validate(fields).output_depth in ("auto", 8, 16)
    else:
        with pytest.raises(ValidationError) as refused:
            JobRequest.model_validate(fields)
        assert refused.value.errors()[0]["loc"][0] == "output_depth"
