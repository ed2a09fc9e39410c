"""Which pages of a TIFF file are images, the pages of a result, and files that are damaged or lie about their size."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.support.matrix_files import P3
from tests.support.tiff_files import FORMAT, LONG, SHORT, UNDEFINED, page, tiff, written
from upres.core import formats
from upres.core.errors import ImageError, TooManyPixels, TruncatedImage, UnsupportedImage
from upres.core.options import ResultOptions
from upres.core.sizes import SizePlan
from upres.worker.imaging import images
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import tiff as reader
from upres.worker.imaging.result_file import fitted

LIMIT = 10**6
LARGE = {"tag_254": (LONG, [0])}
THUMBNAIL = {"tag_254": (LONG, [1])}
COMPRESSIONS = ["lzw", "deflate", "packbits", "lzma", "zstd", "lerc", "jpegxl", "jpeg2000", "jpeg"]


def read(data: bytes) -> Raster:
    return reader.read(data, LIMIT)


def full(level: int = 200, size: int = 8) -> list[bytes]:
    return [bytes([level]) * (size * size)]


def test_a_thumbnail_before_the_page_is_not_the_image() -> None:
    small = page(full(1, 4), 4, 4, 8, 1, 1, **THUMBNAIL)
    old = page(full(1, 4), 4, 4, 8, 1, 1, tag_255=(SHORT, [2]))
    mask = page(full(1, 8), 8, 8, 8, 1, 1, tag_254=(LONG, [4]))
    large = page(full(), 8, 8, 8, 1, 1, **LARGE)
    for data in (
        tiff(small, large), tiff(old, large), tiff(mask, small, large), tiff(small, sub_ifds=[large]),
        tiff(small, sub_ifds=[small, large]), tiff(large, small), tiff(large, sub_ifds=[small]),
    ):  # fmt: skip
        assert read(data).samples.shape == (8, 8, 1)
        assert (read(data).samples == 200).all()


def test_a_file_of_thumbnails_only_gives_the_first() -> None:
    assert read(tiff(page(full(7, 4), 4, 4, 8, 1, 1, **THUMBNAIL))).samples.tolist() == [[[7]] * 4] * 4


def deep_page() -> Any:
    values = np.full((4, 6, 3), 40_000, np.uint16)
    return page([values.tobytes()], 6, 4, 16, 3, 2, tag_34675=(UNDEFINED, b"profile"))


def test_all_pages_are_read_with_their_own_size_depth_and_profile() -> None:
    small = page(full(1, 4), 4, 4, 8, 1, 1, **THUMBNAIL)
    large = page(full(), 8, 8, 8, 1, 1)
    for data in (tiff(large, deep_page(), small), tiff(small, large, small, deep_page())):
        found = reader.read_all(data, LIMIT)
        assert found
        assert (found.durations, [one.icc for one in found.frames]) == ((), [None, b"profile"])
        assert [one.samples.shape for one in found.frames] == [(8, 8, 1), (4, 6, 3)]
        assert [one.samples.dtype for one in found.frames] == [np.uint8, np.uint16]
        assert reader.has_several(data)
    assert not reader.has_several(tiff(small, large, sub_ifds=[small]))


def test_the_pixels_of_all_pages_together_and_their_number_are_limited() -> None:
    large = page(full(size=20), 20, 20, 8, 1, 1)
    with pytest.raises(TooManyPixels, match=r"3 pages, 0\.0 megapixels together.*frames: first"):
        reader.read_all(tiff(large, large, large), 1000)
    with pytest.raises(TooManyPixels, match="more than 1,000 pages"):
        reader.read_all(tiff(*[page([b"x"], 1, 1, 8, 1, 1)] * 1001), LIMIT)


def test_of_a_file_with_a_damaged_page_those_before_it_remain() -> None:
    large = page(full(), 8, 8, 8, 1, 1)
    short = page([b"x"], 8, 8, 8, 1, 1)
    pictures = images.decode_all(tiff(large, large, short, large), LIMIT)
    assert len(pictures.frames) == 2
    assert pictures.notices == (
        "The file is incomplete or damaged; the result has its first 2 pages, which are sound.",
    )
    with pytest.raises(TruncatedImage):
        images.decode_all(tiff(short, large), LIMIT)


def test_pages_that_the_result_cannot_have_are_not_read() -> None:
    unknown = page(full(), 8, 8, 8, 1, 32844)
    data = tiff(page(full(), 8, 8, 8, 1, 1), unknown)
    found = images.decode_all(data, LIMIT, holds=formats.holds("png"))
    first, outputs = fitted(found, ResultOptions(output_format="png"), [SizePlan((16, 16), 2, (16, 16))])
    assert (len(first.frames), len(outputs)) == (1, 1)
    assert first.notices == ("PNG cannot have several pages; the result is the first page. Ask for tiff.",)
    with pytest.raises(UnsupportedImage):
        images.decode_all(data, LIMIT)


def test_a_result_has_a_page_for_each_with_its_own_size_depth_and_profile() -> None:
    gray, deep = np.arange(48, dtype=np.uint8).reshape(6, 8), np.arange(90, dtype=np.uint16).reshape(5, 6, 3) * 700
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(gray, photometric="minisblack", metadata=None)
        writer.write(deep, photometric="rgb", iccprofile=P3, metadata=None)
    found = images.decode_all(file.getvalue(), LIMIT)
    plans = [SizePlan((width * 2, height * 2), 2, (width * 2, height * 2)) for width, height in found.sizes]
    fitting, outputs = fitted(found, ResultOptions(), plans)
    enlarged = [frame.pixels.repeat(2, 0).repeat(2, 1) for frame in fitting.frames]
    made = Encoders(1).file(fitting, outputs, [band for one in enlarged for band in (one[:3], one[3:])])
    with tifffile.TiffFile(io.BytesIO(made)) as tiff:
        first, second = (one.aspage() for one in tiff.pages)
        assert (first.asarray() == gray.repeat(2, 0).repeat(2, 1)).all()
        assert (second.asarray() == deep.repeat(2, 0).repeat(2, 1)).all()
        assert [str(one.dtype) for one in (first, second)] == ["uint8", "uint16"]
        assert [one.iccprofile for one in (first, second)] == [None, P3]


@pytest.mark.parametrize("photometric", [32803, 34892])
def test_raw_files_of_cameras_are_refused_by_name(photometric: int) -> None:
    small = page(full(1, 4), 4, 4, 8, 1, 1, **THUMBNAIL)
    sensor = page(full(), 8, 8, 8, 1, photometric, **LARGE)
    dng = page(full(1, 4), 4, 4, 8, 1, 1, **THUMBNAIL, tag_50706=(1, bytes([1, 4, 0, 0])))
    for data in (tiff(small, sub_ifds=[sensor]), tiff(small, sensor), tiff(sensor), tiff(dng)):
        with pytest.raises(UnsupportedImage, match="RAW"):
            images.decode(data, LIMIT)


def test_pages_that_follow_each_other_in_a_circle_end() -> None:
    data = bytearray(tiff(page(full(1, 4), 4, 4, 8, 1, 1, **THUMBNAIL)))
    start = struct.unpack_from("<I", data, 4)[0]
    data[-4:] = struct.pack("<I", start)
    assert read(bytes(data)).samples.shape == (4, 4, 1)


def test_the_profile_is_kept() -> None:
    data = tiff(page([bytes(48)], 4, 4, 8, 3, 2, tag_34675=(UNDEFINED, b"profile")))
    assert read(data).icc == b"profile"


def test_strips_that_are_not_in_the_file_are_damage() -> None:
    whole = tiff(page([bytes(range(48)), bytes(range(48))], 4, 8, 8, 3, 2))
    for tag, value in ((273, 0), (279, 0), (273, 10**6), (279, 10**6)):
        place = struct.unpack_from("<I", whole, whole.index(struct.pack("<HH", tag, LONG)) + 8)[0]
        damaged = bytearray(whole)
        struct.pack_into("<I", damaged, place + 4, value)
        with pytest.raises(TruncatedImage, match="strips or tiles are missing"):
            read(bytes(damaged))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_strip_that_ends_early_is_damage(compression: str) -> None:
    values = np.random.default_rng(4).integers(1, 255, (64, 64, 3), np.uint8)
    data = bytearray(written(values, photometric="rgb", compression=compression, rowsperstrip=64))
    start = data.index(struct.pack("<HHI", 279, LONG, 1)) + 8
    count = struct.unpack_from("<I", data, start)[0]
    struct.pack_into("<I", data, start, count // 2)
    with pytest.raises(ImageError):
        read(bytes(data))


def test_the_number_of_pixels_is_checked_in_the_header() -> None:
    with pytest.raises(TooManyPixels, match="50000×50000"):
        read(tiff(page([b"x"], 50_000, 50_000, 8, 3, 2)))


@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_an_image_without_pixels_is_damage(size: tuple[int, int]) -> None:
    with pytest.raises(TruncatedImage):
        images.decode(tiff(page([b"x"], *size, 8, 1, 1, tag_278=(LONG, [4]))), LIMIT)


def test_tiles_much_larger_than_the_image_are_refused() -> None:
    strip = zlib.compress(bytes(100))
    tags = {"tag_322": (LONG, [60_000]), "tag_323": (LONG, [60_000]), "tag_324": (LONG, [8]), "tag_325": (LONG, [9])}
    with pytest.raises(UnsupportedImage, match="tiles"):
        read(tiff(page([strip], 4, 4, 8, 1, 1, tag_259=(SHORT, [8]), **tags)))


def test_float_format_is_told_by_sample_format() -> None:
    values = np.full((2, 2), 0.5, np.float32)
    data = tiff(page([values.tobytes()], 2, 2, 32, 1, 1, **{f"tag_{FORMAT}": (SHORT, [3])}))
    assert (read(data).samples == 32768).all()


def test_every_cut_file_is_an_error() -> None:
    data = written(
        np.random.default_rng(2).integers(0, 65535, (6, 10, 3), np.uint16), photometric="rgb", compression="deflate"
    )
    for length in range(4, len(data) - 1, 7):
        with pytest.raises(ImageError):
            images.decode(data[:length], LIMIT)
