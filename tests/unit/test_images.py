"""Reading and writing images: what is kept, converted and refused."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.support.images import encoded, opened, psnr
from tests.support.paths import SAMPLES
from tests.support.result_files import result_file
from upres.core import formats
from upres.core.errors import FormatLimit, NotAnImage, TooManyPixels, TruncatedImage, UnsupportedImage
from upres.core.schema import OutputFormat
from upres.worker.imaging import images
from upres.worker.imaging.bicubic import bicubic
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Picture, Pictures

LIMIT = 1_000_000
ENCODERS = Encoders(jobs=1)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def decode(data: bytes) -> Picture:
    return images.decode(data, LIMIT)


def encode(picture: Picture, format: OutputFormat, factor: int = 1) -> bytes:
    """Encode the picture with every pixel repeated `factor` times in both directions."""
    rows = picture.pixels.repeat(factor, 0).repeat(factor, 1)
    return ENCODERS.file(Pictures((picture,)), [result_file(picture, factor, format)], [rows])


@pytest.mark.parametrize(("pillow", "format"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp")])
def test_a_photo_keeps_its_format_and_its_pixels(photo: Image.Image, pillow: str, format: OutputFormat) -> None:
    data = encoded(photo, pillow)
    picture = decode(data)
    assert picture.format == format
    assert picture.size == photo.size
    assert (picture.pixels == np.asarray(opened(data).convert("RGB"))).all()
    again = opened(encode(picture, format))
    assert again.format == pillow
    assert psnr(again, photo) > 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_removed(photo: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(opened(data))
    picture = decode(data)
    assert (picture.pixels == np.asarray(upright)).all()
    assert not opened(encode(picture, "png")).getexif()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about the damage
def test_an_image_with_damaged_exif_is_still_decoded(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 40
    data = encoded(photo, "JPEG", exif=exif)
    start = data.index(b"Exif")
    for position in range(start + 6, start + 60):
        for value in (0, 255, data[position] ^ 0x80):
            damaged = data[:position] + bytes([value]) + data[position + 1 :]
            assert sorted(decode(damaged).size) == sorted(photo.size)


def test_alpha_is_kept_and_enlarged(photo: Image.Image) -> None:
    image = photo.copy()
    image.putalpha(Image.linear_gradient("L").resize(photo.size))
    written = opened(encode(decode(encoded(image, "PNG")), "png", 2))
    assert written.mode == "RGBA"
    expected = image.getchannel("A").resize(written.size, Image.Resampling.NEAREST)
    assert (np.asarray(written.getchannel("A")) == np.asarray(expected)).all()


def test_transparent_pixels_become_white_in_jpeg() -> None:
    clear = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    written = opened(encode(decode(encoded(clear, "PNG")), "jpeg"))
    assert written.mode == "RGB"
    assert written.getpixel((8, 8)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grayscale_is_kept(photo: Image.Image, mode: str) -> None:
    picture = decode(encoded(photo.convert(mode), "PNG"))
    assert picture.gray
    assert (picture.pixels[..., 0] == picture.pixels[..., 2]).all()
    written = opened(encode(picture, "png"))
    assert written.mode == ("LA" if mode == "LA" else "L")
    assert (np.asarray(written.getchannel("L")) == np.asarray(photo.convert(mode).convert("L"))).all()


def test_samples_of_16_bits_are_kept_and_can_be_converted_to_8_bits() -> None:
    ramp = np.linspace(0, 65535, 64 * 8).astype(np.uint16).reshape(8, 64)
    picture = decode(encoded(Image.fromarray(ramp), "PNG"))
    assert picture.gray
    assert (picture.pixels[..., 0] == ramp).all()
    assert (picture.at_depth(8).pixels[..., 0] == np.round(ramp / 257)).all()


def test_a_transparent_16_bit_value_becomes_an_alpha_channel() -> None:
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    picture = decode(encoded(Image.fromarray(ramp), "PNG", transparency=5000))
    assert picture.alpha is not None
    assert (picture.alpha == np.where(ramp == 5000, 0, 65535)).all()


def test_palette_images_are_converted_to_rgb(photo: Image.Image) -> None:
    palette = photo.quantize(16)
    picture = decode(encoded(palette, "PNG"))
    assert (picture.pixels == np.asarray(palette.convert("RGB"))).all()
    assert picture.alpha is None
    transparent = decode(encoded(palette, "PNG", transparency=palette.getpixel((0, 0))))
    assert transparent.alpha is not None
    assert transparent.alpha[0, 0] == 0


def test_cmyk_images_are_converted_to_rgb(photo: Image.Image) -> None:
    cmyk = photo.convert("CMYK")
    picture = decode(encoded(cmyk, "JPEG", quality=100))
    assert psnr(Image.fromarray(picture.pixels), cmyk.convert("RGB")) > 35
    assert picture.icc is None


def test_an_rgb_profile_in_a_cmyk_image_is_ignored(photo: Image.Image) -> None:
    picture = decode(encoded(photo.convert("CMYK"), "JPEG", quality=100, icc_profile=SRGB))
    assert psnr(Image.fromarray(picture.pixels), photo) > 30
    assert picture.icc is None


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_icc_profile_is_kept(photo: Image.Image, format: OutputFormat) -> None:
    picture = decode(encoded(photo, "PNG", icc_profile=SRGB))
    assert opened(encode(picture, format)).info["icc_profile"] == SRGB


def test_the_first_frame_of_an_animation_is_decoded_accurately(photo: Image.Image) -> None:
    frames = [photo, ImageOps.invert(photo)]
    for format in ("PNG", "WEBP"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
        assert psnr(Image.fromarray(decode(data).pixels), photo) > 40


def test_exif_and_comments_are_removed(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    data = encoded(photo, "JPEG", exif=exif, comment=b"secret comment")
    assert b"secret" in data
    for format in formats.CONTENT_TYPES:
        assert b"secret" not in encode(decode(data), format)


@pytest.mark.parametrize("data", [b"hello", b"<html></html>", bytes(1000)])
def test_data_that_is_not_an_image_raises_not_an_image(data: bytes) -> None:
    with pytest.raises(NotAnImage, match="PNG, JPEG, WebP"):
        decode(data)


@pytest.mark.parametrize(("data", "name"), [(b"%PDF-1.7", "PDF"), (b"<svg/>", "SVG")])
def test_the_error_names_the_unsupported_format(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        decode(data)


@pytest.mark.parametrize(
    ("pillow", "format"), [("GIF", "png"), ("BMP", "png"), ("TIFF", "png"), ("AVIF", "webp"), ("JPEG2000", "png")]
)
def test_input_formats_that_cannot_be_written_get_another_output_format(
    photo: Image.Image, pillow: str, format: OutputFormat
) -> None:
    data = encoded(photo, pillow)
    picture = decode(data)
    assert picture.format == format
    assert (picture.pixels == np.asarray(opened(data).convert("RGB"))).all()


def test_the_first_of_several_frames_is_decoded_in_every_format(photo: Image.Image) -> None:
    second = Image.new("RGB", photo.size, "red")
    for pillow in ("GIF", "TIFF", "WEBP", "PNG", "AVIF"):
        options = {"lossless": True} if pillow == "WEBP" else {"quality": 100} if pillow == "AVIF" else {}
        picture = decode(encoded(photo, pillow, save_all=True, append_images=[second] * 20, **options))
        assert psnr(Image.fromarray(picture.pixels), photo) > 25


def test_an_icc_profile_larger_than_1_mib_is_refused(photo: Image.Image) -> None:
    large, huge = SRGB + bytes(1_000_000), SRGB + bytes(1_100_000)
    data = encoded(photo, "TIFF", icc_profile=large)
    assert opened(encode(decode(data), "png")).info["icc_profile"] == large
    with pytest.raises(UnsupportedImage, match="1 MiB"):
        decode(encoded(photo, "TIFF", icc_profile=huge))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about the damage
@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_truncated_file_raises_an_upres_error(photo: Image.Image, format: str) -> None:
    data = encoded(photo, format)
    for length in [*range(4, 64), *range(64, len(data) - 16, 97)]:
        with pytest.raises((TruncatedImage, NotAnImage, UnsupportedImage)) as raised:
            decode(data[:length])
        assert "object at" not in str(raised.value)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    # The second file has a valid header for 1001×1000 pixels but almost no pixel data: decoding it would fail.
    sound = encoded(Image.new("L", (1001, 1000)), "PNG")
    header = sound[: sound.index(b"IDAT") - 4]
    for data in (sound, header + sound[len(header) :][:20]):
        with pytest.raises(TooManyPixels, match="1001×1000"):
            decode(data)


def test_a_small_file_with_very_many_pixels_is_refused() -> None:
    with pytest.raises(TooManyPixels):
        decode(encoded(Image.new("1", (10000, 10000)), "PNG"))


def test_results_too_large_for_their_format_are_refused() -> None:
    formats.check_size((16383, 10), "webp")
    with pytest.raises(FormatLimit, match="png"):
        formats.check_size((16384, 10), "webp")
    with pytest.raises(FormatLimit, match="65500"):
        formats.check_size((10, 65501), "jpeg")


def test_bicubic_matches_the_result_of_pillow() -> None:
    with Image.open(SAMPLES / "coffee.png") as coffee:
        image = coffee.convert("RGB").crop((0, 0, 40, 30))
    expected = image.resize((160, 120), Image.Resampling.BICUBIC)
    assert (
        np.concatenate(list(bicubic(np.asarray(image), (image.width * 4, image.height * 4)))) == np.asarray(expected)
    ).all()
    tall = Image.fromarray(np.asarray(image).repeat(20, axis=0))
    bands = list(bicubic(np.asarray(tall), (tall.width * 4, tall.height * 4)))
    assert len(bands) > 1
    expected = tall.resize((tall.width * 4, tall.height * 4), Image.Resampling.BICUBIC)
    assert np.abs(np.concatenate(bands).astype(int) - np.asarray(expected)).max() <= 2


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_a_gray_result_has_no_icc_profile(photo: Image.Image, format: OutputFormat) -> None:
    gray = decode(encoded(photo.convert("L"), "PNG", icc_profile=SRGB))
    assert "icc_profile" not in Image.open(io.BytesIO(encode(gray, format))).info
    assert np.abs(gray.pixels[..., 0].astype(int) - np.asarray(photo.convert("L"))).max() <= 1
