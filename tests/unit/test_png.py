"""PngWriter writes a PNG band by band, in any size and mode; Pillow reads the same pixels."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.support.images import encoded
from tests.support.paths import SAMPLES
from upres.worker.imaging.png import PngWriter, profile_chunk

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
POOL = ThreadPoolExecutor(2)


def write(pixels: np.ndarray, heights: list[int], icc: bytes | None = None) -> bytes:
    height, width, channels = pixels.shape
    pieces: list[bytes] = []
    writer = PngWriter(width, height, channels, POOL, pieces.append, [profile_chunk(icc)] if icc else [])
    top = 0
    while top < height:
        step = heights[top % len(heights)]
        writer.write(pixels[top : top + step])
        top += step
    writer.finish()
    return b"".join(pieces)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.integers(1, 4),
    heights=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_written_pixels_are_read_back_unchanged(
    size: tuple[int, int], channels: int, heights: list[int], seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
    image = Image.open(io.BytesIO(write(pixels, heights)))
    image.load()
    assert image.mode == MODES[channels]
    assert (np.asarray(image).reshape(pixels.shape) == pixels).all()


def test_a_large_photo_is_written_in_many_idat_chunks() -> None:
    with Image.open(SAMPLES / "astronaut.png") as photo:
        image = photo.convert("RGB").resize((2048, 2048), Image.Resampling.BICUBIC)
    data = write(np.asarray(image), [700], icc=b"profile")
    again = Image.open(io.BytesIO(data))
    assert (np.asarray(again) == np.asarray(image)).all()
    assert again.info["icc_profile"] == b"profile"
    assert data.count(b"IDAT") > 10
    assert len(data) < 1.25 * len(encoded(image, "PNG"))


def test_missing_rows_are_an_error() -> None:
    writer = PngWriter(4, 3, 1, POOL, list[bytes]().append)
    writer.write(np.zeros((2, 4, 1), np.uint8))
    with pytest.raises(ValueError, match="1 rows are missing"):
        writer.finish()
