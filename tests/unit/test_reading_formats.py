"""Reading JPEG XL, JPEG 2000, HEIC and AVIF. Right values are computed here."""

import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.support.encoders import avif_encode, jpeg2k_encode, jpegxl_encode, jpegxl_encode_jpeg
from tests.support.heic_files import heic
from tests.support.images import encoded
from tests.support.matrix_files import P3
from upres.core.errors import ImageError, TooManyPixels, UnsupportedImage
from upres.worker.imaging import images
from upres.worker.imaging.jxl_header import header
from upres.worker.imaging.readers import avif, heif, jpeg2000, jxl
from upres.worker.imaging.readers.samples import upright

LIMIT = 10**6
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def waves(channels: int, bits: int) -> npt.NDArray[Any]:
    """A smooth image with all levels, of 48×64 pixels."""
    y, x = np.mgrid[0:48, 0:64]
    planes = [np.sin(x / 20 + n) * np.cos(y / 15 - n) / 2 + 0.5 for n in range(channels)]
    levels: npt.NDArray[Any] = np.rint(np.stack(planes, -1) * (2**bits - 1))
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def error(samples: npt.NDArray[Any], expected: npt.NDArray[Any], bits: int) -> float:
    """The largest difference, in shares of the range."""
    assert samples.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert samples.shape == expected.shape
    return float(np.abs(samples / np.iinfo(samples.dtype).max - expected / (2**bits - 1)).max())


def linear(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The formula of sRGB (IEC 61966-2-1) from linear light, for 16 bits."""
    light = samples / 65535
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 65535


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jpeg_xl_with_8_bits(channels: int) -> None:
    expected = waves(channels, 8)
    stored = expected[..., 0] if channels == 1 else expected
    raster = jxl.read(jpegxl_encode(stored, lossless=True), LIMIT)
    assert error(raster.samples, expected, 8) == 0
    assert raster.format == "png"
    for container in (True, False):
        lossy = jxl.read(jpegxl_encode(stored, distance=0.5, usecontainer=container), LIMIT)
        assert error(lossy.samples, expected, 8) < 0.06
        assert lossy.format == "webp"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("floating", [False, True])
def test_jpeg_xl_with_16_bits_of_linear_light_becomes_srgb(channels: int, floating: bool) -> None:
    stored = waves(channels, 16)
    given = (stored / 65535).astype(np.float32) if floating else stored
    data = jpegxl_encode(given[..., 0] if channels == 1 else given, lossless=True)
    assert header(data).colours == "linear sRGB"
    expected = linear(stored)
    if channels in (2, 4):
        expected[..., -1] = stored[..., -1]
    assert np.abs(jxl.read(data, LIMIT).samples - expected).max() <= (8 if floating else 1)


def test_jpeg_xl_made_of_jpeg_becomes_that_jpeg_with_its_profile(photo: Image.Image) -> None:
    data = encoded(photo, "JPEG", icc_profile=SRGB)
    here, there = images.decode(data, LIMIT), images.decode(jpegxl_encode_jpeg(data), LIMIT)
    assert (here.pixels == there.pixels).all()
    assert there.icc == SRGB
    assert there.format == "jpeg"


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (256, 256), (300, 200), (40, 5000), (3000, 7), (120, 100)])
def test_the_header_of_jpeg_xl_states_the_size(size: tuple[int, int]) -> None:
    """Small, divisible by eight, with a ratio, and large: each is stored differently."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for data in (jpegxl_encode(pixels, usecontainer=True), jpegxl_encode(pixels, usecontainer=False)):
        found = header(data)
        assert (found.width, found.height, found.bits, found.colours) == (*size, 8, "sRGB")
        with pytest.raises(TooManyPixels):
            jxl.read(data, size[0] * size[1] - 1)


class Bits:
    """Writes the header of JPEG XL, the lowest bit first."""

    def __init__(self) -> None:
        self.value = self.count = 0

    def u(self, value: int, count: int) -> "Bits":
        self.value |= value << self.count
        self.count += count
        return self

    def data(self) -> bytes:
        return b"\xff\x0a" + self.value.to_bytes(self.count // 8 + 20, "little")


def head() -> Bits:
    """8×8 pixels, 8 bits, no extra fields; one extra channel and the colours follow."""
    return Bits().u(1, 1).u(0, 5).u(1, 3).u(0, 2).u(0, 1).u(0, 2).u(1, 1)


@pytest.mark.parametrize(
    ("colours", "name"),
    [
        (head().u(0, 2).u(0, 1).u(0, 1).u(1, 1).u(0, 2), "ICC profile"),
        (head().u(0, 2).u(0, 1).u(0, 2).u(0, 2).u(1, 2).u(2, 2).u(9, 4).u(0, 1).u(1, 2), "primaries 11 and curve BT"),
        (head().u(1, 2).u(0, 1).u(2, 2).u(2, 4).u(0, 3).u(0, 2).u(0, 2).u(1, 1).u(1, 1), "inks"),
    ],
)  # fmt: skip
def test_jpeg_xl_with_other_colours_is_refused_by_name(colours: Bits, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        jxl.read(colours.data(), LIMIT)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("container", ["jp2", "j2k"])
def test_jpeg_2000(channels: int, bits: int, container: str) -> None:
    expected = waves(channels, bits)
    stored = expected[..., 0] if channels == 1 else expected
    data = jpeg2k_encode(stored, level=0, codecformat=container, bitspersample=bits, reversible=True)
    raster = jpeg2000.read(data, LIMIT)
    assert error(raster.samples, expected, bits) < 1e-4
    assert raster.format == "png"
    with pytest.raises(TooManyPixels, match="64×48"):
        jpeg2000.read(data, 64 * 48 - 1)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def with_colours(colours: bytes, *more: bytes, channels: int = 3) -> bytes:
    """A JP2 file whose description of colours is replaced."""
    pixels = waves(channels, 8)
    code = jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)
    ihdr = box(b"ihdr", struct.pack(">IIHBBBB", 48, 64, channels, 7, 7, 0, 0))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", ihdr + box(b"colr", colours) + b"".join(more)) + box(b"jp2c", code)


def test_the_profile_of_jpeg_2000_is_kept_and_other_colours_are_refused() -> None:
    assert jpeg2000.read(with_colours(b"\2\0\0" + SRGB), LIMIT).icc == SRGB
    wide = jpeg2000.read(with_colours(b"\2\0\0" + P3), LIMIT)
    assert (wide.icc, (wide.samples == waves(3, 8)).all()) == (P3, True)  # the library would apply it
    assert jpeg2000.read(with_colours(b"\1\0\0" + struct.pack(">I", 16)), LIMIT).icc is None
    for space in (12, 18, 24):
        with pytest.raises(UnsupportedImage, match=f"colour space {space}"):
            jpeg2000.read(with_colours(b"\1\0\0" + struct.pack(">I", space)), LIMIT)
    with pytest.raises(UnsupportedImage, match="profile"):
        jpeg2000.read(with_colours(b"\2\0\0" + SRGB[:16] + b"CMYK" + SRGB[20:]), LIMIT)


def test_premultiplied_alpha_of_jpeg_2000_becomes_straight() -> None:
    meaning = struct.pack(">H12H", 4, 0, 0, 1, 1, 0, 2, 2, 0, 3, 3, 2, 0)
    srgb = b"\1\0\0" + struct.pack(">I", 16)
    stored = waves(4, 8).astype(int)
    samples = jpeg2000.read(with_colours(srgb, box(b"cdef", meaning), channels=4), LIMIT).samples
    alpha = stored[..., 3:]
    expected = np.where(alpha > 0, np.minimum(255, (stored[..., :3] * 255 + alpha // 2) // np.maximum(alpha, 1)), 0)
    shown = (alpha > 0) & (alpha < 255)
    assert (np.where(shown, samples[..., :3] - expected, 0) == 0).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_heic(channels: int, bits: int) -> None:
    expected = waves(channels, bits)
    raster = heif.read(heic(expected), LIMIT)
    assert error(raster.samples, expected, bits) < 0.01
    with pytest.raises(TooManyPixels, match="64×48"):
        heif.read(heic(expected), 64 * 48 - 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_rotation_of_the_container_is_applied_once(kind: str, orientation: int) -> None:
    """The writers store the orientation of EXIF as irot and imir."""
    expected = waves(3, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "HEIC":
        data = heic(expected, exif=exif.tobytes())
        assert (b"irot" in data or b"imir" in data) == (orientation > 1)
        samples = heif.read(data, LIMIT).samples
    else:
        data = encoded(Image.fromarray(expected), "AVIF", quality=100, subsampling="4:4:4", exif=exif)
        samples = avif.read(data, LIMIT).samples
    assert error(samples, upright(expected, orientation), 8) < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
def test_samples_are_turned_as_pillow_does(orientation: int, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(io.BytesIO(encoded(photo, "PNG", exif=exif)))
    assert (upright(np.asarray(photo), orientation) == np.asarray(ImageOps.exif_transpose(image))).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12])
def test_avif_with_more_than_8_bits_keeps_them(channels: int, bits: int) -> None:
    expected = waves(channels, bits)
    stored = expected[..., 0] if channels == 1 else expected
    raster = avif.read(avif_encode(stored, level=100, bitspersample=bits), LIMIT)
    assert error(raster.samples, expected, bits) < 1e-4


SMALL = {
    "JPEG XL": jpegxl_encode(waves(3, 8), distance=1.0),
    "JPEG XL in a container": jpegxl_encode(waves(3, 16), lossless=True),
    "JPEG 2000": jpeg2k_encode(waves(3, 8), level=80),
    "codestream": jpeg2k_encode(waves(4, 12), codecformat="j2k", bitspersample=12, level=0, reversible=True),
    "HEIC": heic(waves(3, 8)),
    "AVIF, 10 bits": avif_encode(waves(3, 10), bitspersample=10),
}


@pytest.mark.parametrize("kind", SMALL)
def test_every_cut_file_is_an_error(kind: str) -> None:
    data = SMALL[kind]
    for length in [*range(1, 64), *range(64, len(data) - 16, max(1, len(data) // 20))]:
        with pytest.raises(ImageError):
            images.decode(data[:length], LIMIT)


@pytest.mark.parametrize("kind", SMALL)
def test_no_file_with_flipped_bits_raises_anything_else(kind: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(25):
        data = bytearray(SMALL[kind])
        for place in rng.integers(0, min(len(data), 400), 3):
            data[place] ^= 1 << rng.integers(0, 8)
        with suppress(ImageError):
            images.decode(bytes(data), LIMIT)
