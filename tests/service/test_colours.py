"""A browser shows the same colours for a result as for its input, however the input describes them."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageCms
from playwright.sync_api import Page

from tests.support.browser import chromium
from tests.support.images import encoded
from tests.support.result_files import result_file
from upres.core.errors import UnsupportedImage
from upres.core.schema import OutputFormat
from upres.worker.imaging import images
from upres.worker.imaging.colour import BT709, gray_in_srgb
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.icc import SRGB_CURVE, Primaries, rgb_profile
from upres.worker.imaging.picture import Pictures

ENCODERS = Encoders(jobs=1)
LEVELS = np.arange(256)
COLOURS = np.stack(
    [
        *(LEVELS[:, None] * weight for weight in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))),
        np.stack([LEVELS, 255 - LEVELS, LEVELS // 2], 1),
        np.stack([LEVELS // 2, LEVELS, 255 - LEVELS], 1),
    ]
).astype(np.uint8)
"""Ramps of gray and of colours, 256 pixels wide."""
XY_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
XY_P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
P3 = Primaries((0.3127, 0.3290), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
SHOWN = """async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
    canvas.drawImage(image, 0, 0);
    return Array.from(canvas.getImageData(0, 0, image.width, image.height).data);
}"""
Chunk = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def blank() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


def shown(page: Page, data: bytes) -> np.ndarray:
    """The pixels that the browser shows, (height, 256, 3), in sRGB."""
    values = page.evaluate(SHOWN, "data:image/*;base64," + base64.b64encode(data).decode())
    return np.array(values, int).reshape(-1, 256, 4)[..., :3]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: np.ndarray, *chunks: Chunk) -> bytes:
    """Write a PNG file of (height, width, 3) or (height, width) with more chunks before its pixels."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    every = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in every)


def gama(number: int) -> Chunk:
    return b"gAMA", struct.pack(">I", number)


def chrm(*numbers: int) -> Chunk:
    return b"cHRM", struct.pack(">8I", *numbers)


def cicp(*numbers: int) -> Chunk:
    return b"cICP", bytes(numbers)


def iccp(profile: bytes) -> Chunk:
    return b"iCCP", b"name\0\0" + zlib.compress(profile)


def avif(primaries: int, transfer: int) -> bytes:
    """Encode COLOURS, without loss of colours, as an AVIF file that describes them by these numbers."""
    data = encoded(Image.fromarray(COLOURS), "AVIF", quality=100, subsampling="4:4:4", speed=10)
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def result(data: bytes, format: OutputFormat, quality: int | None = None) -> bytes:
    """Encode the decoded image as a result, without enlarging it."""
    picture = images.decode(data, 100_000)
    return ENCODERS.file(Pictures((picture,)), [result_file(picture, 1, format, quality)], [picture.pixels])


DESCRIBED = {
    "gamma of sRGB": (gama(45455),),
    "nearly the gamma of sRGB": (gama(47000),),
    "linear": (gama(100_000),),
    "dark": (gama(30_000),),
    "gamma of sRGB and its primaries": (gama(45455), chrm(*XY_SRGB)),
    "gamma of sRGB and other primaries": (gama(45455), chrm(*XY_P3)),
    "linear and other primaries": (gama(100_000), chrm(*XY_P3)),
    "primaries only": (chrm(*XY_P3),),
    "impossible primaries": (gama(45455), chrm(*[0] * 8)),
    "primaries on a line": (gama(45455), chrm(31270, 32900, *[30000, 30000] * 3)),
    "gamma 0": (gama(0),),
    "sRGB before a gamma": ((b"sRGB", b"\0"), gama(100_000)),
    "sRGB after a gamma": (gama(100_000), chrm(*XY_P3), (b"sRGB", b"\0")),
    "a profile before a gamma": (iccp(rgb_profile(P3, SRGB_CURVE)), gama(100_000)),
    "numbers of P3": (cicp(12, 13, 0, 1),),
    "numbers of P3 before a profile": (cicp(12, 13, 0, 1), iccp(rgb_profile(P3, (1.0,)))),
    "numbers, linear": (cicp(1, 8, 0, 1),),
    "numbers of BT.709": (cicp(1, 1, 0, 1),),
    "numbers of BT.2020": (cicp(9, 14, 0, 1),),
    "numbers, gamma 2.2": (cicp(1, 4, 0, 1),),
    "numbers, unspecified": (cicp(2, 2, 0, 1),),
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_png_is_shown_in_the_same_colours(blank: Page, name: str) -> None:
    given = png(COLOURS, *DESCRIBED[name])
    assert np.abs(shown(blank, result(given, "png")) - shown(blank, given)).max() <= 1


@pytest.mark.parametrize("name", ["linear and other primaries", "numbers of P3", "a profile before a gamma", "linear"])
def test_an_avif_result_is_shown_in_the_same_colours(blank: Page, name: str) -> None:
    given = png(COLOURS.repeat(8, axis=0), *DESCRIBED[name])
    off = np.abs(shown(blank, result(given, "avif", 100)) - shown(blank, given))
    assert off.mean() <= 1.5  # a linear profile makes small errors in the dark larger


def test_a_webp_result_of_a_png_with_other_primaries_is_shown_in_the_same_colours(blank: Page) -> None:
    given = png(COLOURS.repeat(16, axis=0), *DESCRIBED["numbers of P3"])  # WebP has one colour for 2 × 2 pixels
    assert np.abs(shown(blank, result(given, "webp")) - shown(blank, given)).mean() <= 3


@pytest.mark.parametrize("numbers", [(1, 13), (1, 1), (12, 13), (12, 1), (9, 14), (1, 8), (1, 4), (2, 2)])
def test_an_avif_is_shown_in_the_same_colours(blank: Page, numbers: tuple[int, int]) -> None:
    given = avif(*numbers)
    assert np.abs(shown(blank, result(given, "png")) - shown(blank, given)).max() <= 3


@pytest.mark.parametrize("chunks", [(gama(100_000),), (iccp(rgb_profile(P3, (1.8,))),), (cicp(1, 8, 0, 1),)])
@pytest.mark.parametrize("format", ["png", "webp", "jpeg", "avif"])
def test_grays_are_shown_as_the_browser_shows_their_input(
    blank: Page, format: OutputFormat, chunks: tuple[Chunk, ...]
) -> None:
    given = png(np.repeat(LEVELS[None].astype(np.uint8), 16, axis=0), *chunks)
    assert np.abs(shown(blank, result(given, format)) - shown(blank, given)).max() <= (
        2 if format in ("png", "jpeg") else 4
    )


def gray_profile(gamma: float) -> bytes:
    """A gray profile of version 2, as scanners write it."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(79)
    table = struct.pack(">I", 3)
    at, data = 128 + 4 + 36, b""
    for name, tag in ((b"kTRC", curve), (b"wtpt", white), (b"desc", text)):
        table += struct.pack(">4sII", name, at + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(data), b"lcms", 0x02200000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + data


@pytest.mark.parametrize("container", ["PNG", "AVIF", "JPEG", "TIFF"])
@pytest.mark.parametrize("format", ["png", "webp", "jpeg", "avif", "tiff"])
def test_a_gray_profile_is_converted_to_srgb(container: str, format: OutputFormat) -> None:
    image = Image.fromarray(np.repeat(LEVELS[None].astype(np.uint8), 16, axis=0))
    made = result(encoded(image, container, icc_profile=gray_profile(1.0), quality=100), format)
    linear = LEVELS / 255
    right = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    opened = Image.open(io.BytesIO(made))
    assert "icc_profile" not in opened.info
    assert np.abs(np.asarray(opened.convert("L"))[8].astype(float) - right).max() <= (
        6 if format in ("webp", "avif") else 3
    )


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_gray_of_16_bits_keeps_its_levels_through_a_profile(gamma: float) -> None:
    levels = np.arange(65536, dtype=np.uint16)
    made = gray_in_srgb(levels, gray_profile(gamma)).astype(float)
    linear = (levels / 65535) ** gamma
    right = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 65535
    assert np.abs(made - right).max() <= 16
    assert (np.diff(made) >= 0).all()
    assert len(np.unique(made)) > 40_000


@pytest.mark.parametrize("profile", [b"junk", b"junk" * 1000, gray_profile(1.0), bytes(16) + b"CMYK" + bytes(500)])
def test_a_profile_that_does_not_fit_is_ignored_as_browsers_do(blank: Page, profile: bytes) -> None:
    given = png(COLOURS, iccp(profile))
    assert np.abs(shown(blank, result(given, "png")) - shown(blank, given)).max() <= 1


@pytest.mark.parametrize("data", [png(COLOURS, cicp(9, 16, 0, 1)), avif(9, 18), avif(9, 16)])
def test_hdr_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=r"HDR \((PQ|HLG)\)"):
        images.decode(data, 100_000)


def test_made_profiles_agree_with_littlecms() -> None:
    srgb = ImageCms.createProfile("sRGB")
    made = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(BT709, SRGB_CURVE)))
    image = Image.fromarray(COLOURS)
    converted = ImageCms.profileToProfile(image, made, srgb)
    assert converted
    assert np.abs(np.asarray(converted).astype(int) - COLOURS).max() <= 1
