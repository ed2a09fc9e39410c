"""CMYK, the colours of printers, and CIE L*a*b*, which cannot be shown as they are, are converted to sRGB."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

PLAIN = "The colour profile of the CMYK image cannot be used; its colours are converted by a plain formula."


def rgb_of_cmyk(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert CMYK to sRGB through the embedded profile; without a usable profile, by Pillow's plain formula.

    Returns the notices too: a profile that cannot be used has one.
    """
    if not icc:
        return image.convert("RGB"), ()
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # what lcms and Pillow's interface of it raise
        converted = None
    return (image.convert("RGB"), (PLAIN,)) if converted is None else (converted, ())


def rgb_of_lab(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Convert (height, width, 3) of L*a*b* under D50 to sRGB: L from 0 to 255; a and b are signed bytes, as in TIFF."""
    image = Image.frombytes("LAB", (values.shape[1], values.shape[0]), np.ascontiguousarray(values).tobytes())
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None
    return np.asarray(converted)
