"""Reading TIFF: depths, colour spaces, alpha, compressions, pages. Right values are computed here."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from tests.support.encoders import jpeg8_encode
from tests.support.images import encoded, psnr
from tests.support.tiff_files import EXTRA, LONG, SHORT, page, tiff, written
from upres.core.errors import UnsupportedImage
from upres.worker.imaging import images
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import tiff as reader
from upres.worker.imaging.readers.samples import upright

LIMIT = 10**6
HEIGHT, WIDTH = 6, 10
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


def gray_ycbcr(**tags: Any) -> tuple[Any, npt.NDArray[np.int64]]:
    """A page, and the gray levels that it shows."""
    luma = noise(255, 1)
    strip = np.concatenate([luma, np.full((HEIGHT, WIDTH, 2), 128)], axis=2).astype(np.uint8).tobytes()
    return page([strip], WIDTH, HEIGHT, 8, 3, 6, tag_530=(SHORT, [1, 1]), **tags), luma


@pytest.mark.parametrize("orientation", range(1, 9))
def test_ycbcr_is_turned_once(orientation: int) -> None:
    one, luma = gray_ycbcr(tag_274=(SHORT, [orientation]))
    expected = upright(luma.astype(np.uint8), orientation)
    assert np.abs(read(tiff(one)).samples.astype(int) - expected).max() <= 1


def test_ycbcr_after_a_thumbnail() -> None:
    one, luma = gray_ycbcr()
    small = page([bytes(48)], 4, 4, 8, 3, 6, tag_530=(SHORT, [1, 1]), **THUMBNAIL)
    assert np.abs(read(tiff(small, one)).samples.astype(int) - luma).max() <= 1
    with pytest.raises(UnsupportedImage, match="SubIFD"):
        read(tiff(small, sub_ifds=[one]))


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
