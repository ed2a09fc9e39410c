"""The container around a JPEG XL codestream: the boxes with metadata, and the header that names the curve."""

from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.support.encoders import jpegxl_encode
from tests.support.result_files import result_file
from upres.worker.imaging.boxes import boxes
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.jxl_header import CONTAINER, LINEAR, SRGB, header
from upres.worker.imaging.metadata import Metadata
from upres.worker.imaging.picture import Picture, Pictures

ENCODERS = Encoders(jobs=1)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def exif() -> bytes:
    made = Image.Exif()
    made[ExifTags.Base.Make] = "Camera"
    return made.tobytes().removeprefix(b"Exif\0\0")


def written(pixels: Any, kept: Metadata, quality: int | None = None) -> bytes:
    made = Picture(pixels, False, 3, None, "png", metadata=kept)
    return ENCODERS.file(Pictures((made,)), [result_file(made, 1, "jxl", quality)], [pixels])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(20, 30), (300, 2100)])
@pytest.mark.parametrize(
    ("kept", "names"),
    [
        (Metadata(), []),
        (Metadata(exif=exif()), [b"Exif"]),
        (Metadata(xmp=XMP), [b"xml "]),
        (Metadata(exif=exif(), xmp=XMP), [b"Exif", b"xml "]),
    ],
)
def test_metadata_is_in_boxes_before_the_codestream(
    dtype: Any, size: tuple[int, int], kept: Metadata, names: list[bytes]
) -> None:
    pixels = np.full((*size, 3), 60 if dtype == np.uint8 else 60 * 257, dtype)
    file = written(pixels, kept, quality=60)
    assert imagecodecs.jpegxl_decode(file).shape == pixels.shape
    assert np.abs(imagecodecs.jpegxl_decode(file).astype(int) - pixels).max() <= pixels[0, 0, 0] // 20
    head = header(file)
    assert (head.width, head.height, head.colours) == (size[1], size[0], SRGB)
    if not kept.exif and not kept.xmp:
        return
    found = list(boxes(file))
    assert file.startswith(CONTAINER)
    assert found[-1][2] == len(file)
    kinds = [name for name, _, _ in found]
    assert [name for name in kinds if name in (b"Exif", b"xml ")] == names
    assert max(kinds.index(name) for name in names) < min(kinds.index(n) for n in kinds if n in (b"jxlc", b"jxlp"))
    content = {name: file[start:end] for name, start, end in found}
    if kept.exif:
        assert content[b"Exif"] == bytes(4) + kept.exif
        read = Image.Exif()
        read.load(content[b"Exif"][4:])
        assert read[ExifTags.Base.Make] == "Camera"
    if kept.xmp:
        assert content[b"xml "] == XMP


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("how", [{"lossless": True}, {"distance": 1.0}])
@pytest.mark.parametrize("container", [False, True])
def test_the_curve_of_imagecodecs_is_where_the_header_says(channels: int, how: dict[str, Any], container: bool) -> None:
    """imagecodecs says «linear» of 16 bits. If it stops to, the writer must not convert samples any more."""
    values = np.full((20, 30, channels), 5000, np.uint16)
    head = header(jpegxl_encode(values[..., 0] if channels == 1 else values, usecontainer=container, **how))
    assert head.colours == LINEAR
    assert head.curve_at is not None


@pytest.mark.parametrize("quality", [90, 100])
def test_dark_pixels_of_16_bits_stay_dark(quality: int) -> None:
    ramp = np.arange(0, 6000, 10, dtype=np.uint16)
    pixels = np.repeat(np.repeat(ramp[None, :, None], 64, axis=0), 3, axis=2)
    seen = imagecodecs.jpegxl_decode(written(pixels, Metadata(), quality)).astype(int)
    assert np.abs(seen - pixels).mean() <= 60
    assert np.abs(seen.mean(axis=(0, 2)) - ramp).max() <= 257
