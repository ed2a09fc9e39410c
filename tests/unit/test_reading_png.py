"""Reading PNG: depths, transparency, and chunks that are damaged, large or unknown. Right values are computed here."""

import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from tests.support.images import encoded
from tests.support.png_files import chunk, of_samples, packed, png
from upres.core.errors import TooManyPixels, TruncatedImage, UnsupportedImage
from upres.worker.imaging import images
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import png as reader

LIMIT = 10**6
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def read(data: bytes) -> Raster:
    return reader.read(data, LIMIT)


def noise(dtype: npt.DTypeLike, channels: int) -> npt.NDArray[np.generic]:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (5, 7, channels), dtype, endpoint=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_samples_keep_their_depth_and_their_channels(dtype: npt.DTypeLike, channels: int) -> None:
    samples = noise(dtype, channels)
    raster = read(of_samples(samples))
    assert raster.samples.dtype == dtype
    assert (raster.samples == samples).all()
    assert (raster.icc, raster.notices, raster.format) == (None, (), "png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_gray_level_of_few_bits_becomes_alpha(bits: int) -> None:
    levels = (np.arange(48).reshape(4, 12) % 2**bits).astype(np.uint8)
    for key in {0, 1, 2**bits - 1}:
        data = png(packed(levels, bits), 12, bits, 0, chunk(b"tRNS", bytes([0, key])))
        samples = read(data).samples
        assert (samples[..., 0] == levels * (255 // (2**bits - 1))).all()
        assert (samples[..., 1] == np.where(levels == key, 0, 255)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_becomes_alpha_by_all_its_bits(dtype: npt.DTypeLike, channels: int) -> None:
    """The second pixel differs from the key in the lowest bit only, the third in the highest."""
    most = np.iinfo(dtype).max
    key = np.full(channels, most // 3, dtype)
    near, far = key.copy(), key.copy()
    near[-1] ^= 1
    far[0] ^= (most >> 1) + 1
    samples = np.stack([key, near, far])[None]
    raster = read(of_samples(samples, chunk(b"tRNS", key.astype(">u2").tobytes())))
    assert (raster.samples[..., :-1] == samples).all()
    assert raster.samples[0, :, -1].tolist() == [0, most, most]


def test_a_palette_may_have_transparent_colours() -> None:
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    data = png([bytes([0, 1, 2])], 3, 8, 3, palette, chunk(b"tRNS", bytes([0, 128])))
    assert read(data).samples.tolist() == [[[255, 0, 0, 0], [0, 255, 0, 128], [0, 0, 255, 255]]]


ONE = np.array([[[10, 20, 30]]], np.uint8)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"tEXt", b"prVt"])
def test_any_amount_of_text_is_skipped(name: bytes) -> None:
    text = b"key\0" + (b"\0" if name == b"zTXt" else b"\1\0\0\0" if name == b"iTXt" else b"")
    large = zlib.compress(bytes(1_100_000)) if name != b"tEXt" else b"x" * 1_100_000
    data = of_samples(ONE, *[chunk(name, text + large)] * 70)
    raster = read(data)
    assert (raster.samples == ONE).all()
    assert raster.notices == ()


def test_animation_chunks_are_skipped(photo: Image.Image) -> None:
    data = encoded(photo, "PNG", save_all=True, append_images=[Image.new("RGB", photo.size)])
    assert b"acTL" in data
    assert (read(data).samples == np.asarray(photo)).all()


@pytest.mark.parametrize("padding", [0, 10, 1_100_000])
def test_a_padded_profile_is_cut_to_its_length(padding: int) -> None:
    data = of_samples(ONE, chunk(b"iCCP", b"name\0\0" + zlib.compress(SRGB + bytes(padding))))
    raster = read(data)
    assert (raster.icc, raster.notices) == (SRGB, ())


def test_a_profile_of_more_than_1_mib_is_refused_without_unpacking_it() -> None:
    huge = (60_000_000).to_bytes(4, "big") + bytes(60_000_000)
    with pytest.raises(UnsupportedImage, match="1 MiB"):
        images.decode(of_samples(ONE, chunk(b"iCCP", b"name\0\0" + zlib.compress(huge))), LIMIT)


@pytest.mark.parametrize(
    "content",
    [b"", b"name", b"name\0\0junk", b"name\0\0" + zlib.compress(SRGB)[:-20][:9]],
    ids=["empty", "only a name", "junk", "cut"],  # SRGB has the time at which it was made
)
def test_a_profile_that_cannot_be_unpacked_is_dropped_with_a_notice(content: bytes) -> None:
    raster = read(of_samples(ONE, chunk(b"iCCP", content)))
    assert (raster.samples == ONE).all()
    assert raster.icc is None
    assert "profile" in raster.notices[0]


@pytest.mark.parametrize("name", [b"tRNS", b"iCCP", b"gAMA", b"eXIf"])
def test_an_ancillary_chunk_with_a_wrong_checksum_is_dropped_with_a_notice(name: bytes) -> None:
    content = bytes([0, 10, 0, 20, 0, 30]) if name == b"tRNS" else b"x"
    raster = read(of_samples(ONE, chunk(name, content, crc=7)))
    assert (raster.samples == ONE).all()
    assert name.decode() in raster.notices[0]


def test_an_unused_chunk_with_a_wrong_checksum_is_not_worth_a_notice() -> None:
    raster = read(of_samples(ONE, chunk(b"tEXt", b"key\0text", crc=7)))
    assert (raster.samples == ONE).all()
    assert raster.notices == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", [b"IHDR", b"IDAT"])
def test_a_critical_chunk_with_a_wrong_checksum_is_damage(dtype: npt.DTypeLike, name: bytes) -> None:
    data = bytearray(of_samples(noise(dtype, 3)))
    start = data.index(name)
    end = start + 4 + int.from_bytes(data[start - 4 : start], "big")
    data[end] ^= 1
    with pytest.raises(TruncatedImage, match="damaged"):
        images.decode(bytes(data), LIMIT)


def test_apples_variant_is_named() -> None:
    data = of_samples(ONE)
    with pytest.raises(UnsupportedImage, match="CgBI"):
        images.decode(data[:8] + chunk(b"CgBI", bytes(4)) + data[8:], LIMIT)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_number_of_pixels_is_checked_in_the_header(bits: int) -> None:
    with pytest.raises(TooManyPixels, match="1001×1000"):
        read(png([b""] * 1000, 1001, bits, 2))


@pytest.mark.parametrize("bits", [8, 16])
def test_orientation_in_exif_is_applied_and_one_in_xmp_is_not(bits: int) -> None:
    samples = noise(np.uint8 if bits == 8 else np.uint16, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read(of_samples(samples, chunk(b"eXIf", exif.tobytes()[6:]))).samples
    assert (turned == np.rot90(samples, -1)).all()
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    assert (read(of_samples(samples, chunk(b"iTXt", xmp))).samples == samples).all()
