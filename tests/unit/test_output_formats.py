"""AVIF, JPEG XL and TIFF results, by their pixels: read by other libraries than those that wrote them."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support.images import opened
from tests.support.paths import SAMPLES
from tests.support.result_files import result_file
from upres.core.errors import FormatLimit, NotEncoded
from upres.core.formats import check_size
from upres.core.options import ResultOptions
from upres.core.schema import OutputFormat
from upres.worker.imaging import images
from upres.worker.imaging.bicubic import bicubic
from upres.worker.imaging.colour import BT709, PRIMARIES
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.icc import SRGB_CURVE, rgb_profile
from upres.worker.imaging.jxl_header import SRGB, header
from upres.worker.imaging.kinds import kind_of
from upres.worker.imaging.picture import Picture, Pictures, picture
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers import whole_image
from upres.worker.samples import LEVEL, Samples

ENCODERS = Encoders(jobs=1)
P3 = rgb_profile(PRIMARIES[12], SRGB_CURVE)
FAR = {"avif": 6, "jxl": 6, "tiff": 0}
"""Levels of 255 by which smooth pixels may be off."""


def smooth(channels: int, depth: int, size: tuple[int, int] = (120, 90)) -> Samples:
    """A gradient, different in each channel, with alpha from 40 % to 100 %."""
    y, x = np.mgrid[: size[1], : size[0]] / max(size)
    planes = [0.2 + 0.3 * x + 0.3 * y, 0.8 - 0.4 * x, 0.3 + 0.5 * y][: 3 if channels > 2 else 1]
    planes += [0.4 + 0.6 * x] * (channels in (2, 4))
    most = 2**depth - 1
    values: Samples = np.rint(np.dstack(planes) * most).astype(np.uint8 if depth == 8 else np.uint16)
    return values


def written(samples: Samples, output: ResultFile, made: Picture) -> bytes:
    """The file of samples, which are not enlarged, given in bands of several heights."""
    bands = [made.pixels[top:bottom] for top, bottom in ((0, 1), (1, 40), (40, 41), (41, len(samples)))]
    return ENCODERS.file(Pictures((made,)), [output], bands)


def result(samples: Samples, wanted: dict[str, Any], icc: bytes | None = None, lossless: bool = False) -> bytes:
    """The file of a result with these options."""
    made = picture(Raster(samples, "png", icc, lossless=lossless))
    options = ResultOptions.model_validate({"upscale_factor": 2, **wanted})
    output = ResultFile.of(options, made, made.size)
    return written(samples, output, output.fitted(made))


def foreign(file: bytes) -> np.ndarray:
    """The samples of a file, (height, width, channels), as a library reads them that did not write it."""
    kind = kind_of(file)
    if kind == "AVIF":
        values = imagecodecs.avif_decode(file)
    elif kind == "TIFF":
        values = imagecodecs.tiff_decode(file)  # libtiff; tifffile wrote it
    else:
        values = imagecodecs.jpegxl_decode(file)
    return values if values.ndim == 3 else values[..., None]


CELLS = [
    (format, depth, channels)
    for format in ("avif", "jxl", "tiff")
    for depth in (8, 16)
    for channels in (1, 2, 3, 4)
    if (format, depth) != ("avif", 16)
]


@pytest.mark.parametrize(("format", "depth", "channels"), CELLS)
def test_a_result_has_the_samples_of_its_image(format: OutputFormat, depth: int, channels: int) -> None:
    samples = smooth(channels, depth)
    file = result(samples, {"output_format": format})
    seen = foreign(file)
    if format == "avif" and channels < 3:  # libavif gives gray as RGB
        seen = seen[..., [0, -1][:channels]] if seen.shape[2] > channels else seen
    assert seen.shape == samples.shape
    assert seen.dtype == samples.dtype
    scale = 1 if depth == 8 else LEVEL
    assert np.abs(seen.astype(int) - samples).max() <= FAR[format] * scale
    assert np.abs(seen.astype(int) - samples).mean() <= 1.5 * scale * (format != "tiff")
    if channels in (2, 4):
        assert (seen[..., -1] == samples[..., -1]).all()
    again = images.decode(file, 10**6).pixels
    assert again.dtype == samples.dtype
    assert np.abs(again[..., :1].astype(int) - samples[..., :1]).max() <= FAR[format] * scale


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("size", [(120, 90), (3, 50), (1, 60), (2, 44)])
def test_jpeg_xl_without_loss_is_exact(depth: int, channels: int, size: tuple[int, int]) -> None:
    kind = np.uint8 if depth == 8 else np.uint16
    samples: Samples = np.random.default_rng(1).integers(0, 2**depth, (size[1], size[0], channels)).astype(kind)
    if channels in (2, 4):
        samples[..., -1] |= 1  # colours where alpha is 0 are replaced
    file = result(samples, {"output_format": "jxl", "lossless": True})
    head = header(file)
    assert (head.width, head.height, head.bits, head.colours, head.lossy) == (*size, depth, SRGB, False)
    assert (foreign(file) == samples).all()
    assert (images.read(file, 10**6).samples == samples).all()


@pytest.mark.parametrize("quality", [1, 50, None, 100])
def test_alpha_of_an_avif_is_exact_also_beside_an_edge(quality: int | None) -> None:
    y, x = np.mgrid[:150, :150]
    disc = (np.hypot(y - 75, x - 75) < 40) * np.uint8(255)
    samples = np.dstack([*smooth(3, 8, (150, 150)).transpose(2, 0, 1), disc])
    assert (foreign(result(samples, {"output_format": "avif", "quality": quality}))[..., 3] == disc).all()


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif", "jxl"])
def test_a_higher_quality_makes_a_larger_file_with_less_error(format: OutputFormat) -> None:
    with Image.open(SAMPLES / "coffee.png") as image:
        samples = np.asarray(image.convert("RGB").crop((100, 100, 300, 250)))
    sizes, errors = [], []
    for quality in (1, 20, 50, 80, 100):
        file = result(samples, {"output_format": format, "quality": quality})
        sizes.append(len(file))
        errors.append(np.abs(images.read(file, 10**6).samples.astype(int) - samples).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2 < errors[0]


@pytest.mark.parametrize(
    ("wanted", "of_lossless_webp", "expected"),
    [
        ({"output_format": "webp"}, False, False),
        ({"output_format": "webp"}, True, True),
        ({"output_format": "webp", "quality": 95}, True, False),
        ({"output_format": "webp", "lossless": False}, True, False),
        ({"output_format": "webp", "lossless": True}, False, True),
    ],
)
def test_webp_is_lossless_on_request(wanted: dict[str, Any], of_lossless_webp: bool, expected: bool) -> None:
    samples = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    seen = opened(result(samples, wanted, lossless=of_lossless_webp))
    assert (np.asarray(seen) == samples).all() == expected


def options(**given: Any) -> ResultOptions:
    return ResultOptions.model_validate(given)


def test_lossless_makes_png_of_what_would_be_jpeg_only() -> None:
    samples = smooth(3, 8)
    for own, wanted, expected in (
        ("jpeg", True, "png"), ("jpeg", None, "jpeg"), ("jpeg", False, "jpeg"), ("webp", True, "webp"),
        ("png", True, "png"),
    ):  # fmt: skip
        made = picture(Raster(samples, own))  # type: ignore[arg-type]
        output = ResultFile.of(options(lossless=wanted), made, made.size)
        assert (output.format, output.lossless) == (expected, bool(wanted) and expected == "webp")
    for own, expected_quality in (("png", None), ("jpeg", 50)):
        made = picture(Raster(samples, own))  # type: ignore[arg-type]
        assert ResultFile.of(options(quality=50), made, made.size).quality == expected_quality


@pytest.mark.parametrize("format", ["avif", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_profile_is_kept(format: OutputFormat, channels: int) -> None:
    file = result(smooth(channels, 8), {"output_format": format}, P3)
    assert opened(file).info["icc_profile"] == P3
    if format == "tiff":
        with tifffile.TiffFile(io.BytesIO(file)) as tiff:
            assert tiff.pages[0].aspage().tags["InterColorProfile"].value == P3


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_jpeg_xl_gets_the_colours_of_a_profile_in_srgb_with_a_notice(depth: int, channels: int) -> None:
    samples = smooth(channels, depth)
    made = picture(Raster(samples, "png", P3))
    output = ResultFile.of(options(output_format="jxl", lossless=True), made, made.size)
    fitted = output.fitted(made)
    assert fitted.icc is None
    assert "sRGB" in fitted.notices[-1]
    file = written(samples, output, fitted)
    most = 2**depth - 1
    right = in_srgb(samples[..., :3] / most) * most
    assert np.abs(foreign(file)[..., :3] - right).max() <= (1 if depth == 8 else LEVEL // 4)
    assert (foreign(file)[..., 3:] == samples[..., 3:]).all()


def in_srgb(values: np.ndarray) -> np.ndarray:
    """Convert P3 with the curve of sRGB to sRGB, by the formulas of IEC 61966-2-1 and CIE XYZ."""

    def matrix(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
        xyz = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in primaries]
        columns = np.stack(xyz[1:], axis=1)
        return columns * np.linalg.solve(columns, xyz[0])

    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = (light @ (np.linalg.inv(matrix(BT709)) @ matrix(PRIMARIES[12])).T).clip(0, 1)
    return np.asarray(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def test_jpeg_xl_without_a_usable_profile_says_so() -> None:
    made = picture(Raster(smooth(3, 8), "png", bytes(16) + b"RGB " + bytes(500)))
    fitted = ResultFile.of(options(output_format="jxl"), made, made.size).fitted(made)
    assert (fitted.pixels == made.pixels).all()
    assert "cannot be used" in fitted.notices[-1]


def test_a_tiff_of_many_strips_is_read_exactly_by_every_library() -> None:
    samples = np.random.default_rng(3).integers(0, 256, (1500, 700, 3), np.uint8)
    file = result(samples, {"output_format": "tiff"})
    with tifffile.TiffFile(io.BytesIO(file)) as tiff:
        assert len(tiff.pages[0].aspage().dataoffsets) > 10
        assert (tiff.asarray() == samples).all()
    assert (foreign(file) == samples).all()
    assert (np.asarray(opened(file)) == samples).all()
    assert len(file) < samples.nbytes * 1.01


@pytest.mark.parametrize(
    ("size", "format", "most"),
    [
        ((32_769, 10), "avif", "32768 per side"),
        ((20_000, 20_000), "avif", "268 megapixels"),
        ((262_145, 1), "jxl", "262144 per side"),
        ((20_000, 20_000), "jxl", "268 megapixels"),
    ],
)
def test_a_result_that_decoders_would_refuse_is_not_made(
    size: tuple[int, int], format: OutputFormat, most: str
) -> None:
    with pytest.raises(FormatLimit, match=most):
        check_size(size, format)
    check_size((16_384, 16_384), format)
    check_size(size, "tiff")


@pytest.mark.parametrize("error", [RuntimeError("too large"), ValueError("too large"), OSError("encoder error -2")])
def test_what_an_encoder_refuses_has_a_code(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*given: object) -> bytes:
        raise error

    monkeypatch.setitem(whole_image.WRITERS, "jxl", refuse)
    with pytest.raises(NotEncoded, match="png"):
        result(smooth(3, 8), {"output_format": "jxl"})


def test_a_full_disk_is_not_the_fault_of_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(whole_image.WRITERS, "jxl", refuse)
    with pytest.raises(OSError, match="space") as raised:
        result(smooth(3, 8), {"output_format": "jxl"})
    assert not isinstance(raised.value, NotEncoded)


@pytest.mark.parametrize("format", ["avif", "jxl", "tiff"])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_original_has_the_same_kind_of_file(format: OutputFormat, depth: int) -> None:
    made = picture(Raster(smooth(4, depth), "png"))
    output = result_file(made, 2, format)
    fitting = made.at_depth(output.depth)
    file = ENCODERS.file(Pictures((fitting,)), [output], bicubic(fitting.pixels, output.size))
    seen = images.read(file, 10**6)
    assert kind_of(file) == {"avif": "AVIF", "jxl": "JPEG XL", "tiff": "TIFF"}[format]
    assert seen.samples.shape == (180, 240, 4)
    assert seen.samples.itemsize * 8 == output.depth
    scale = 257 if seen.samples.dtype != made.pixels.dtype else 1
    least = seen.samples[::2, ::2].astype(float) * scale
    assert np.abs(least - made.pixels).max() <= 12 * (1 if depth == 8 else LEVEL)
