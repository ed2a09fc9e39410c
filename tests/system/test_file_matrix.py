"""Each kind of input with each format of a result, on the whole system: pixels, depth, alpha, profile, metadata."""

import io
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageCms

from tests.support import file_matrix, matrix_files
from tests.support.file_matrix import (
    DPI,
    EXIF,
    GIVEN,
    IPTC,
    TEXTS,
    WRITTEN,
    XMP,
    Given,
    Written,
    expected,
)
from tests.support.images import opened
from tests.support.matrix_files import SEVERAL
from tests.support.png_files import of_samples
from upres.client import Client
from upres.embedded.stack import Local
from upres.worker.imaging.kinds import kind_of

Plain = dict[bool, npt.NDArray[np.float64]]
"""Whether a picture is gray → what its plain result shows."""
IPTC_OF_TIFF = 33723
MOST_OFF = 5.0
"""Mean difference in levels of 8 bits, on white and in sRGB, that loss in the file and conversions may cause."""


class Seen(NamedTuple):
    """What a file of a result has."""

    depth: int
    alpha: bool
    profile: bytes | None
    metadata: frozenset[str]
    shown: npt.NDArray[np.float64]
    """(height, width, 3) from 0 to 255: the pixels of its first picture in sRGB, on white."""
    pictures: int
    """Number of frames or pages."""


def seen(data: bytes) -> Seen:
    """Return what a file has, read by other code than the one that wrote it."""
    kind = kind_of(data)
    if kind == "JPEG XL":
        return _seen_in_jpeg_xl(data)
    image = opened(data)
    profile, count = image.info.get("icc_profile"), getattr(image, "n_frames", 1)
    deep = {"PNG": imagecodecs.png_decode, "TIFF": imagecodecs.tiff_decode}.get(kind or "")
    values = deep(data) if deep and count == 1 else np.asarray(_straight(image))
    alpha, depth = image.has_transparency_data, 8 * values.itemsize
    scaled = np.atleast_3d(values / (257 if depth == 16 else 1))
    return Seen(depth, alpha, profile, _metadata(image), _shown(scaled, alpha, profile), count)


def _straight(image: Image.Image) -> Image.Image:
    """Return the first frame without a palette."""
    image.seek(0)
    return image.convert("RGBA" if image.has_transparency_data else "RGB") if image.mode == "P" else image


def _seen_in_jpeg_xl(data: bytes) -> Seen:
    values = np.atleast_3d(imagecodecs.jpegxl_decode(data))
    depth, alpha = 8 * values.itemsize, values.shape[2] in (2, 4)
    there = {EXIF: b"Camera" in data, XMP: b"Ada" in data}
    metadata = frozenset(name for name, found in there.items() if found)
    return Seen(depth, alpha, None, metadata, _shown(values / (257 if depth == 16 else 1), alpha, None), 1)


def _metadata(image: Image.Image) -> frozenset[str]:
    found = {
        EXIF: image.getexif().get(ExifTags.Base.Make) == "Camera",
        XMP: b"Ada" in _bytes(image.info.get("xmp")),
        IPTC: b"Title" in _bytes((image.info.get("photoshop") or {}).get(0x0404) or image.getexif().get(IPTC_OF_TIFF)),
        DPI: round(image.info.get("dpi", (0,))[0]) not in (0, 72),
        TEXTS: image.info.get("Title") == "A cat",
    }
    return frozenset(name for name, there in found.items() if there)


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _shown(values: npt.NDArray[Any], alpha: bool, profile: bytes | None) -> npt.NDArray[np.float64]:
    colours = values[..., :-1] if alpha else values
    rgb = np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours
    if profile:
        given = Image.fromarray(np.rint(rgb).astype(np.uint8))
        converted = ImageCms.profileToProfile(given, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
        rgb = np.asarray(converted, float)
    share = values[..., -1:] / 255 if alpha else np.ones_like(rgb[..., :1])
    shown: npt.NDArray[np.float64] = rgb * share + 255 * (1 - share)
    return shown


@pytest.fixture(scope="module")
def plain(local: Local) -> Plain:
    """The results of the plain picture, gray or not, as PNG files of 8 bits without a profile: (height, width, 3)."""
    with Client(local.url) as client:
        return {gray: _plain(client, gray) for gray in (False, True)}


def _plain(client: Client, gray: bool) -> npt.NDArray[np.float64]:
    upscaled = client.upscale(of_samples(matrix_files.samples(8, 1 if gray else 3)), 2)
    return _shown(np.atleast_3d(np.asarray(opened(upscaled.download()), float)), False, None)


def reference(plain: Plain, given: Given) -> npt.NDArray[np.float64]:
    """Return what a result should show: the plain picture, on white where the input has alpha."""
    share = matrix_files.alpha().repeat(2, 0).repeat(2, 1) if given.alpha else 1.0
    return plain[given.gray] * share + 255 * (1 - share)


@pytest.mark.parametrize("written", WRITTEN, ids=lambda written: written.format)
@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_a_result_has_what_its_input_and_its_format_have(
    client: Client, plain: Plain, given: Given, written: Written
) -> None:
    upscaled = client.upscale(given.data(), 2, output_format=written.format, metadata="keep")
    found, wanted = seen(upscaled.download()), expected(given, written)
    assert upscaled.result.format == written.format
    assert (found.depth, upscaled.result.depth) == (wanted.depth, wanted.depth)
    assert (found.alpha, bool(found.profile), found.metadata) == (wanted.alpha, wanted.profile, wanted.metadata)
    assert (found.pictures, upscaled.result.frames) == (wanted.count, wanted.count)
    assert np.abs(found.shown - reference(plain, given)).mean() < MOST_OFF


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_auto_makes_the_format_of_the_table_and_keeps_no_metadata(client: Client, plain: Plain, given: Given) -> None:
    upscaled = client.upscale(given.data(), 2)
    found = seen(upscaled.download())
    assert (upscaled.result.format, found.metadata) == (given.auto, frozenset())
    assert (found.pictures, upscaled.result.frames) == (SEVERAL if given.several else 1,) * 2
    assert np.abs(found.shown - reference(plain, given)).mean() < MOST_OFF


def test_the_tables_in_docs_are_those_of_the_matrix() -> None:
    text = file_matrix.PAGE.read_text()
    assert text == file_matrix.page(text), "run: python -m tests.support.file_matrix"
