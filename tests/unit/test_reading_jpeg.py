"""Reading JPEG: files that are cut, more than 8 bits, JPEG-LS, CMYK."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from tests.support.encoders import jpeg8_encode, jpegls_encode
from tests.support.images import encoded, opened, psnr
from tests.support.paths import SAMPLES
from upres.core.errors import TooManyPixels, TruncatedImage, UnsupportedImage
from upres.worker.imaging import images
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import jpeg as reader

LIMIT = 10**6
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def read(data: bytes) -> Raster:
    return reader.read(data, LIMIT)


def waves(channels: int, bits: int) -> npt.NDArray[np.uint16]:
    """A smooth image, which compression hardly changes."""
    y, x = np.mgrid[0:48, 0:64]
    planes = [np.sin(x / 20 + n) * np.cos(y / 15 - n) / 2 + 0.5 for n in range(channels)]
    levels: npt.NDArray[np.uint16] = np.rint(np.stack(planes, -1) * (2**bits - 1)).astype(np.uint16)
    return levels


@pytest.fixture(scope="module", params=["baseline", "progressive", "gray", "cmyk", "restarts"])
def whole(request: pytest.FixtureRequest) -> bytes:
    with Image.open(SAMPLES / "coffee.png") as image:
        photo = image.convert("RGB").resize((320, 240))
    photo = photo.convert({"gray": "L", "cmyk": "CMYK"}.get(request.param, "RGB"))
    options = {"progressive": request.param == "progressive"}
    if request.param == "restarts":
        options["restart_marker_rows"] = 1
    return encoded(photo, "JPEG", quality=90, **options)


@pytest.mark.parametrize("missing", [1, 2, 3, 10, 1000])
def test_a_file_without_its_last_bytes_is_shown_with_a_notice(whole: bytes, missing: int) -> None:
    raster = read(whole[:-missing])
    assert "end of the JPEG file is missing" in raster.notices[0]
    complete = read(whole)
    assert complete.notices == ()
    assert raster.samples.shape == complete.samples.shape
    half = raster.samples.shape[0] // 2
    got, expected = (Image.fromarray(np.squeeze(one.samples[:half])) for one in (raster, complete))
    assert psnr(got, expected) > 25


def noise(**options: object) -> bytes:
    """A file in which each row takes the same number of bytes: without its first 5% it has 160 rows of pixels."""
    pixels = np.random.default_rng(5).integers(0, 255, (160, 160, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=90, subsampling="4:4:4", **options)


@pytest.mark.parametrize("share", [0.95, 0.75, 0.6])
def test_missing_rows_become_gray_as_in_browsers(share: float) -> None:
    data = noise()
    raster, whole = read(data[: int(len(data) * share)]), read(data)
    gray = int((np.abs(raster.samples.astype(int) - 128) <= 1).all(axis=(1, 2)).sum())
    assert abs(gray / 160 - (1 - share)) < 0.08
    assert (raster.samples[: 160 - gray - 8] == whole.samples[: 160 - gray - 8]).all()
    assert f"about {gray} of 160 rows" in raster.notices[0]


def test_a_file_with_less_than_half_of_its_rows_stays_incomplete() -> None:
    data = noise()
    for length in [*range(4, 1000, 37), *range(1000, int(len(data) * 0.45), 1511)]:
        with pytest.raises(TruncatedImage, match="incomplete"):
            images.decode(data[:length], LIMIT)


def test_a_progressive_file_that_is_blurred_only_stays_incomplete() -> None:
    data = noise(progressive=True)
    for length in range(4, int(len(data) * 0.3), 1511):
        with pytest.raises(TruncatedImage, match="incomplete"):
            images.decode(data[:length], LIMIT)
    assert "details are missing" in read(data[: int(len(data) * 0.9)]).notices[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("bits", "lossless"), [(12, False), (12, True), (16, True), (8, True)])
def test_more_than_8_bits_and_lossless_jpeg(channels: int, bits: int, lossless: bool) -> None:
    samples = waves(channels, bits)
    stored = samples.astype(np.uint8) if bits == 8 else samples
    raster = read(jpeg8_encode(stored, level=None if lossless else 98, bitspersample=bits, lossless=lossless))
    assert raster.samples.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert raster.samples.shape == samples.shape
    most = np.iinfo(raster.samples.dtype).max
    error = np.abs(raster.samples / most - samples / (2**bits - 1)).max()
    assert error < (1e-5 if lossless else 0.02)
    assert raster.format == "png"


def test_jpeg_ls_is_refused_by_name() -> None:
    """CharLS 2.4.3 takes seven seconds for a damaged file of some kilobytes."""
    with pytest.raises(UnsupportedImage, match="JPEG-LS"):
        images.decode(jpegls_encode(waves(3, 16)), LIMIT)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize("junk", [b"\xff\xff", b"\0\0", b"junk", b"\xff\xd0"])
def test_bytes_between_segments_are_skipped_as_by_libjpeg(photo: Image.Image, junk: bytes) -> None:
    data = encoded(photo, "JPEG")
    end = 4 + int.from_bytes(data[4:6], "big")
    assert (read(data[:end] + junk + data[end:]).samples == read(data).samples).all()


def test_profile_and_orientation_of_12_bits_are_used() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    parts = [SRGB[:300], SRGB[300:]]
    profile = [segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 2]) + part) for n, part in enumerate(parts, 1)]
    samples = waves(3, 12)
    data = jpeg8_encode(samples, level=98, bitspersample=12)
    head = segment(0xE1, exif.tobytes()) + profile[1] + profile[0]  # in the wrong order
    raster = read(data[:2] + head + data[2:])
    assert raster.icc == SRGB
    assert raster.samples.shape == (64, 48, 3)
    assert (raster.samples == np.rot90(read(data).samples, -1)).all()


def test_orientation_in_xmp_alone_does_not_turn_the_image(photo: Image.Image) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    data = encoded(photo, "JPEG", xmp=xmp)
    assert opened(data).getexif()[0x0112] == 6, "Pillow takes it from there"
    for kind in ("JPEG", "WEBP", "AVIF"):
        assert images.decode(encoded(photo, kind, xmp=xmp), LIMIT).size == photo.size


@pytest.mark.parametrize("transform", [0, 2])
def test_inverted_cmyk_and_ycck_of_adobe(photo: Image.Image, transform: int) -> None:
    """Pillow writes CMYK inverted, as Adobe does; YCCK is the same after another transform of the colours."""
    cmyk = photo.convert("CMYK")
    if transform:
        data = jpeg8_encode(255 - np.asarray(cmyk), level=100, colorspace="cmyk", outcolorspace="ycck")
    else:
        data = encoded(cmyk, "JPEG", quality=100)
    assert data[data.index(b"Adobe") + 11] == transform
    raster = read(data)
    assert psnr(Image.fromarray(np.asarray(raster.samples)), cmyk.convert("RGB")) > 30


@pytest.mark.parametrize("marker", [0xC5, 0xC7, 0xCB, 0xCF])
def test_frames_that_no_library_reads_are_refused_by_name(photo: Image.Image, marker: int) -> None:
    data = bytearray(encoded(photo, "JPEG"))
    data[data.index(b"\xff\xc0") + 1] = marker
    with pytest.raises(UnsupportedImage, match="is not supported"):
        images.decode(bytes(data), LIMIT)


def test_the_number_of_pixels_is_checked_in_the_header() -> None:
    for bits in (8, 12):
        frame = segment(0xC1, bytes([bits]) + (60_000).to_bytes(2, "big") * 2 + bytes([1, 1, 0x11, 0]))
        with pytest.raises(TooManyPixels, match="60000×60000"):
            read(b"\xff\xd8" + frame + segment(0xDA, bytes([1, 1, 0, 0, 63, 0])))
