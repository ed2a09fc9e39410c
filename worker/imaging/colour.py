"""The colours of a file that has no ICC profile but describes them by numbers: as an ICC profile that says the same.

PNG has the chunks cICP, sRGB, gAMA and cHRM (W3C, Third Edition, section 4.3); AVIF and HEIF have the box `colr` with
the numbers of ITU-T H.273. What is not described is sRGB. Where the standards leave a choice, the result is what
Chromium shows.
"""

import io
import struct
from collections.abc import Mapping
from types import MappingProxyType

import imagecodecs
import numpy as np
from PIL import Image, ImageCms

from upres.core.errors import UnsupportedImage
from upres.worker.imaging.boxes import boxes
from upres.worker.imaging.icc import SRGB_CURVE, VIDEO_CURVE, Primaries, gray_profile, rgb_profile
from upres.worker.samples import LEVEL, Samples

D65 = (0.3127, 0.3290)
BT709 = Primaries(D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
PRIMARIES: Mapping[int, Primaries] = MappingProxyType({
    1: BT709,
    2: BT709,
    4: Primaries((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: Primaries((0.310, 0.316), (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Primaries(D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Primaries(D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
})  # fmt: skip
"""ITU-T H.273, table 2; 2 is «unspecified»."""
CURVES = MappingProxyType({2: SRGB_CURVE, 4: (2.2,), 5: (2.8,), 8: (1.0,), 13: SRGB_CURVE, 17: (2.6,)})
"""ITU-T H.273, table 3; 2 is «unspecified»."""
VIDEO = (1, 6, 14, 15)
"""The numbers of table 3 that stand for BT.709's curve. In AVIF and HEIF, browsers show them as sRGB."""
HDR = {16: "PQ", 18: "HLG"}
GAMMA_TOLERANCE = 0.05
"""A gAMA chunk alone means sRGB if it differs by less than this share from 1 / 2.2, as in libpng."""


def of_container(data: bytes, icc: bytes | None) -> bytes | None:
    """Return the profile of an AVIF or HEIF file whose embedded one is `icc`; None for sRGB.

    Raises UnsupportedImage as `of_png` does.
    """
    if icc is None and (numbers := _nclx(data)):
        return _of_numbers(*numbers, {**CURVES, **dict.fromkeys(VIDEO, SRGB_CURVE)})
    return icc


def gray_in_srgb(samples: Samples, icc: bytes) -> Samples:
    """Convert gray samples from a gray or RGB profile to sRGB; a profile that cannot be used changes nothing.

    From an RGB profile, samples of 16 bits are interpolated between 256 levels, because Pillow converts RGB of 8 only.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if source.profile.xcolor_space != "RGB ":
            return _converted(source, np.arange(np.iinfo(samples.dtype).max + 1).astype(samples.dtype))[samples]
        curve = _converted(source, np.arange(256, dtype=np.uint8))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return samples
    if samples.dtype == np.uint8:
        return curve[samples]
    levels = np.interp(np.arange(65536) / LEVEL, np.arange(256), curve)
    return np.rint(levels * LEVEL).astype(np.uint16)[samples]


def _converted(source: ImageCms.ImageCmsProfile, levels: Samples) -> Samples:
    """Convert gray levels from a gray or RGB profile to sRGB. Raises PyCMSError or another error of ImageCms."""
    ramp, is_rgb = Image.fromarray(levels[None]), source.profile.xcolor_space == "RGB "
    target = ImageCms.ImageCmsProfile(io.BytesIO(gray_profile(SRGB_CURVE)))
    given = ramp.convert("RGB") if is_rgb else ramp
    exact = ImageCms.Flags.NOOPTIMIZE  # else littleCMS interpolates between few points, and is 10 levels off
    transform = ImageCms.buildTransform(source, target, given.mode, ramp.mode, flags=exact)
    made = ImageCms.applyTransform(given, transform)
    if made is None:
        raise ValueError("nothing was converted")
    levels_made: Samples = np.asarray(made)[0]
    return levels_made


def rgb_in_srgb(samples: Samples, icc: bytes) -> Samples | None:
    """Convert RGB, (height, width, 3), or with alpha 4, from a profile to sRGB; None if the profile cannot be used.

    Colours that sRGB does not have become the nearest ones on its border.
    """
    exact = int(ImageCms.Flags.NOOPTIMIZE)  # else littleCMS is 12 levels of 255 off, with samples of 16 bits
    target, rgb = rgb_profile(BT709, SRGB_CURVE), np.ascontiguousarray(samples[..., :3])
    try:
        made = imagecodecs.cms_transform(rgb, icc, target, colorspace="rgb", outcolorspace="rgb", flags=exact)
    except (RuntimeError, ValueError):  # what imagecodecs raises for littleCMS's errors and for its own
        return None
    return np.concatenate([made, samples[..., 3:]], axis=2) if samples.shape[2] == 4 else made


def fits_rgb(icc: bytes) -> bool:
    """Return whether a profile is for RGB (ICC.1:2022, section 7.2.6); viewers ignore one that is not."""
    return icc[16:20] == b"RGB "


def of_png(chunks: Mapping[bytes, bytes], icc: bytes | None) -> bytes | None:
    """Return the profile of a PNG file with these chunks, whose embedded one is `icc`; None for sRGB.

    cICP has precedence over all others. Raises UnsupportedImage for HDR, and for descriptions that are not known.
    """
    if len(cicp := chunks.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full_range = cicp
        if matrix or full_range != 1:
            raise UnsupportedImage("The PNG file has a cICP chunk that is not for RGB in full range; save it as sRGB.")
        return _of_numbers(primaries, transfer, {**CURVES, **dict.fromkeys(VIDEO, VIDEO_CURVE)})
    if icc is not None or b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return icc
    (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
    described = chunks.get(b"cHRM", b"")
    if not gamma or (len(described) != 32 and abs(gamma / 100_000 * 2.2 - 1) < GAMMA_TOLERANCE):
        return None
    try:
        return rgb_profile(_of_chrm(described), (100_000 / gamma,))
    except (ValueError, struct.error):  # impossible numbers mean nothing
        return None


def _of_chrm(data: bytes) -> Primaries:
    """Return the primaries in a cHRM chunk; those of sRGB if there is none."""
    if len(data) != 32:
        return BT709
    xy = [number / 100_000 for number in struct.unpack(">8I", data)]
    return Primaries(*zip(xy[::2], xy[1::2], strict=True))


def _of_numbers(primaries: int, transfer: int, curves: Mapping[int, tuple[float, ...]]) -> bytes | None:
    """Return the profile for numbers of ITU-T H.273; None for sRGB. Raises UnsupportedImage."""
    if transfer in HDR:
        raise UnsupportedImage(f"The image is HDR ({HDR[transfer]}), which is not supported; save it as SDR.")
    if primaries not in PRIMARIES or transfer not in curves:
        kind = f"{primaries}/{transfer} (ITU-T H.273)"
        raise UnsupportedImage(f"The image has colours of kind {kind}, which is not supported; save it as sRGB.")
    if PRIMARIES[primaries] == BT709 and curves[transfer] == SRGB_CURVE:
        return None
    return rgb_profile(PRIMARIES[primaries], curves[transfer])


def _nclx(data: bytes) -> tuple[int, int] | None:
    """Return the numbers for primaries and transfer in an AVIF or HEIF file (ISO/IEC 14496-12, section 12.1.5)."""
    properties = data
    for name, skipped in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):  # one is inside the other
        inside = (properties[start + skipped : end] for kind, start, end in boxes(properties) if kind == name)
        properties = next(inside, b"")
    for kind, start, end in boxes(properties):
        if kind == b"colr" and properties[start : start + 4] == b"nclx" and end - start >= 8:
            return struct.unpack_from(">HH", properties, start + 4)
    return None
