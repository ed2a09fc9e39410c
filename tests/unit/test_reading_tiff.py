"""Reading TIFF: depths, colour spaces, alpha, compressions, pages. Right values are computed here."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from tests.support.encoders import jpeg8_encode
from tests.support.images import encoded, psnr
from tests.support.tiff_files import EXTRA, FORMAT, LONG, SHORT, UNDEFINED, page, tiff, written
from upres.core.errors import ImageError, TooManyPixels, TruncatedImage, UnsupportedImage
from upres.worker.imaging import images
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import tiff as reader

LIMIT = 10**6
HEIGHT, WIDTH = 6, 10
LARGE = {"tag_254": (LONG, [0])}
THUMBNAIL = {"tag_254": (LONG, [1])}


def read(data: bytes) -> Raster:
    return reader.read(data, LIMIT)


def noise(most: int, channels: int) -> npt.NDArray[np.int64]:
    """Values from 0 to `most`; the first two are the ends."""
    values = np.random.default_rng(2).integers(0, most, (HEIGHT, WIDTH, channels), np.int64, endpoint=True)
    values[0, 0], values[0, 1] = 0, most
    return values


def rows_of(values: npt.NDArray[np.int64], bits: int, order: str) -> bytes:
    """Rows of packed samples. Samples with whole bytes have the file's order."""
    if bits % 8 == 0:
        return values.astype(f"{order}u{bits // 8}").tobytes()
    ones = ((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
    return b"".join(np.packbits(row.reshape(-1)).tobytes() for row in ones)


def stretched(values: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """What samples of so many bits mean in 8 or 16 bits."""
    target = 255 if bits <= 8 else 65535
    if bits > 16:
        return values >> (bits - 16)
    scaled: npt.NDArray[np.int64] = np.floor(values * target / (2**bits - 1) + 0.5).astype(np.int64)
    return scaled


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_gray_of_every_depth(order: str, bits: int, white_is_zero: bool) -> None:
    values = noise(2**bits - 1, 1)
    stored = 2**bits - 1 - values if white_is_zero else values
    strips = [rows_of(stored[:4], bits, order), rows_of(stored[4:], bits, order)]
    data = tiff(page(strips, WIDTH, HEIGHT, bits, 1, 0 if white_is_zero else 1, tag_278=(LONG, [4])), order=order)
    raster = read(data)
    assert raster.samples.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert np.abs(raster.samples - stretched(values, bits)).max() <= (1 if bits == 32 else 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_rgb_of_8_and_16_bits_in_both_arrangements(order: str, bits: int, planar: bool, channels: int) -> None:
    values = noise(2**bits - 1, channels)
    strips = (
        [rows_of(values[..., n], bits, order) for n in range(channels)] if planar else [rows_of(values, bits, order)]
    )
    tags: dict[str, Any] = {"tag_284": (SHORT, [2 if planar else 1])}
    if channels == 4:
        tags[f"tag_{EXTRA}"] = (SHORT, [2])
    assert (read(tiff(page(strips, WIDTH, HEIGHT, bits, channels, 2, **tags), order=order)).samples == values).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours", [1, 3])
def test_premultiplied_alpha_becomes_straight_and_other_extra_channels_are_dropped(bits: int, colours: int) -> None:
    most = 2**bits - 1
    straight, alpha = noise(most, colours), noise(most, 1)
    alpha[2] = 0
    multiplied = np.floor(straight * alpha / most + 0.5).astype(np.int64)
    values = np.concatenate([multiplied, noise(most, 1), alpha], axis=2)
    kind = 2 if colours == 3 else 1
    data = tiff(
        page([rows_of(values, bits, "<")], WIDTH, HEIGHT, bits, colours + 2, kind, **{f"tag_{EXTRA}": (SHORT, [0, 1])})
    )
    samples = read(data).samples.astype(np.int64)
    assert (samples[..., -1:] == alpha).all()
    again = np.floor(samples[..., :-1] * alpha / most + 0.5)
    assert (again == multiplied).all()
    opaque = alpha[..., 0] == most
    assert opaque.any()
    assert (samples[opaque][:, :-1] == straight[opaque]).all()


def test_a_fourth_channel_that_is_not_alpha_is_dropped() -> None:
    values = noise(255, 4)
    data = tiff(page([rows_of(values, 8, "<")], WIDTH, HEIGHT, 8, 4, 2, **{f"tag_{EXTRA}": (SHORT, [0])}))
    assert (read(data).samples == values[..., :3]).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("factor", [1, 256, 257])
def test_palettes_with_8_and_with_16_bits(bits: int, factor: int) -> None:
    numbers = noise(2**bits - 1, 1)
    palette = np.random.default_rng(3).integers(0, 255, (3, 2**bits), np.int64, endpoint=True)
    palette[0, 0] = 255
    tags = {"tag_320": (SHORT, (palette * factor).reshape(-1).tolist())}
    data = tiff(page([rows_of(numbers, bits, "<")], WIDTH, HEIGHT, bits, 1, 3, **tags))
    assert (read(data).samples == palette.T[numbers[..., 0]]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_floating_point_from_0_to_1_becomes_16_bits(dtype: npt.DTypeLike, predictor: bool, bigtiff: bool) -> None:
    values = (noise(65535, 3) / 65535).astype(dtype)
    options = {"compression": "deflate", "predictor": True} if predictor else {}
    samples = read(written(values, photometric="rgb", bigtiff=bigtiff, **options)).samples
    assert samples.dtype == np.uint16
    assert np.abs(samples - np.rint(values.astype(np.float64) * 65535)).max() <= 1


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, np.inf])
def test_other_floating_point_is_refused_by_name(value: float) -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[1, 1] = value
    with pytest.raises(UnsupportedImage, match="outside of 0 to 1"):
        read(written(values))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (written(np.zeros((4, 4), np.int16)), "INT"),
        (written(np.zeros((4, 4), np.uint64)), "64 bits"),
        (written(np.zeros((4, 4), np.complex64)), "COMPLEX"),
        (tiff(page([bytes(80)], 4, 4, 8, 5, 5, tag_332=(SHORT, [2]))), "inks"),
        (tiff(page([bytes(48)], 4, 4, 8, 3, 32845)), "LOGLUV"),
        (tiff(page([bytes(48)], 4, 4, 8, 3, 2, tag_259=(SHORT, [34676]))), "SGILOG"),
        (tiff(page([bytes(160)], 4, 4, 8, 10, 2)), "10 channels"),
    ],
)  # fmt: skip
def test_kinds_that_could_not_be_shown_rightly_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        read(data)


def test_cmyk_with_a_junk_profile_is_converted_by_the_plain_formula(photo: Image.Image) -> None:
    cmyk = photo.convert("CMYK")
    for format in ("TIFF", "JPEG"):
        options = {"quality": 100} if format == "JPEG" else {}
        for junk in (b"junk", bytes(200), ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()[:300]):
            picture = images.decode(encoded(cmyk, format, icc_profile=junk, **options), LIMIT)
            assert psnr(Image.fromarray(picture.pixels), cmyk.convert("RGB")) > (35 if format == "JPEG" else 90)
            assert picture.icc is None
            assert "plain formula" in picture.notices[0]


@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_with_alpha(bits: int) -> None:
    values = noise(2**bits - 1, 5)
    data = tiff(page([rows_of(values, bits, "<")], WIDTH, HEIGHT, bits, 5, 5, **{f"tag_{EXTRA}": (SHORT, [2])}))
    eight = (values >> (bits - 8)).astype(np.uint8)
    expected = Image.frombytes("CMYK", (WIDTH, HEIGHT), eight[..., :4].tobytes()).convert("RGB")
    assert (read(data).samples[..., :3] == np.asarray(expected)).all()
    assert (read(data).samples[..., 3] == eight[..., 4]).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9])
def test_lab_of_both_kinds(bits: int, photometric: int) -> None:
    """Gray of three levels, and one red: L*a*b* = 53, 80, 67 is nearly sRGB's (255, 0, 0)."""
    lab = np.array([[[0, 0, 0], [53.6, 0, 0], [100, 0, 0], [54.3, 80.8, 69.9]]])  # under D50
    offset = 128 if photometric == 9 else 0
    eight = np.rint(np.stack([lab[..., 0] * 2.55, lab[..., 1] + offset, lab[..., 2] + offset], -1)).astype(np.int64)
    stored = (eight % 256) * (1 if bits == 8 else 256) + (128 if bits == 16 else 0)
    data = tiff(page([rows_of(stored, bits, "<")], 4, 1, bits, 3, photometric))
    expected = [[0, 0, 0], [128, 128, 128], [255, 255, 255], [255, 0, 0]]
    assert np.abs(read(data).samples.astype(int) - [expected]).max() <= 6


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_ycbcr_becomes_rgb(photo: Image.Image, compression: str | None) -> None:
    data = encoded(photo.convert("YCbCr"), "TIFF", compression=compression)
    assert psnr(Image.fromarray(np.asarray(read(data).samples)), photo) > 30


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_subsampled_ycbcr_without_jpeg(subsampling: tuple[int, int]) -> None:
    """Each unit holds the luma of a block, then one Cb and one Cr: here gray, so that only the order matters."""
    across, down = subsampling
    luma = noise(255, 1)[..., 0]
    units = luma.reshape(HEIGHT // down, down, WIDTH // across, across).swapaxes(1, 2).reshape(-1, across * down)
    strip = np.concatenate([units, np.full((len(units), 2), 128)], axis=1).astype(np.uint8).tobytes()
    data = tiff(page([strip], WIDTH, HEIGHT, 8, 3, 6, tag_530=(SHORT, [across, down])))
    assert np.abs(read(data).samples.astype(int) - luma[..., None]).max() <= 1


LOSSLESS = ["lzw", "deflate", "packbits", "lzma", "zstd", "lerc"]


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_compressions_without_loss(compression: str, dtype: npt.DTypeLike, tile: tuple[int, int] | None) -> None:
    values = noise(np.iinfo(dtype).max, 3).astype(dtype)
    predictor = compression in ("lzw", "deflate", "zstd")
    data = written(values, photometric="rgb", compression=compression, predictor=predictor, tile=tile)
    assert (read(data).samples == values).all()


@pytest.mark.parametrize("compression", ["jpegxl", "jpeg2000", "webp"])
def test_image_formats_inside_tiff(compression: str) -> None:
    values = noise(255, 3).astype(np.uint8)
    data = (
        written(values, photometric="rgb", compression=compression, compressionargs={"lossless": True})
        if compression == "webp"
        else written(values, photometric="rgb", compression=compression)
    )
    assert (read(data).samples == values).all()


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compressions(photo: Image.Image, compression: str) -> None:
    bilevel = photo.convert("1")
    assert (read(encoded(bilevel, "TIFF", compression=compression)).samples[..., 0] == np.asarray(bilevel) * 255).all()


def test_jpeg_with_12_bits_inside_tiff() -> None:
    ramp = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    strip = jpeg8_encode(ramp, level=100, bitspersample=12)
    data = tiff(page([strip], 64, 64, 12, 1, 1, tag_259=(SHORT, [7])))
    assert np.abs(read(data).samples[..., 0] / 65535 - ramp / 4095).max() < 0.002


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_page_is_applied(orientation: int) -> None:
    values = noise(255, 3)
    turns = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1],
        5: values.swapaxes(0, 1), 6: np.rot90(values, -1), 7: values.swapaxes(0, 1)[::-1, ::-1], 8: np.rot90(values),
    }  # fmt: skip
    data = tiff(page([rows_of(values, 8, "<")], WIDTH, HEIGHT, 8, 3, 2, tag_274=(SHORT, [orientation])))
    assert (read(data).samples == turns[orientation]).all()


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


@pytest.mark.parametrize("compression", [*LOSSLESS, "jpegxl", "jpeg2000", "jpeg"])
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
    data = written(noise(65535, 3).astype(np.uint16), photometric="rgb", compression="deflate")
    for length in range(4, len(data) - 1, 7):
        with pytest.raises(ImageError):
            images.decode(io.BytesIO(data).read(length), LIMIT)
