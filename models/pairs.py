"""PSNR on the standard benchmark pairs for super-resolution.

Protocol: Y of BT.601 in limited range, `factor` pixels cropped from each side, peak 255.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

BETWEEN = 3
"""A factor between those of the networks."""
Pixels = npt.NDArray[np.uint8]
Upscale = Callable[[Pixels, int], Pixels]


def luma(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Y of BT.601 in limited range [16, 235], (height, width), from RGB (height, width, 3); as MATLAB's rgb2ycbcr."""
    weights = np.array([65.481, 128.553, 24.966])
    return np.asarray(pixels.astype(np.float64) @ weights / 255 + 16)


def psnr(image: Pixels, reference: Pixels, crop: int) -> float:
    """PSNR of the luma in dB, without the outermost `crop` pixels of each side."""
    difference = (luma(image) - luma(reference))[crop:-crop, crop:-crop]
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def measure(upscale: Upscale, lr: Path, factor: int) -> tuple[float, float]:
    """PSNR in dB of a network and of bicubic interpolation, for one pair of NAME_LR.png and NAME_HR.png."""
    small = Image.open(lr).convert("RGB")
    reference = np.asarray(Image.open(lr.with_name(lr.name.replace("_LR", "_HR"))).convert("RGB"))
    bicubic = small.resize((small.width * factor, small.height * factor), Image.Resampling.BICUBIC)
    enlarged = upscale(np.asarray(small), factor)
    return psnr(enlarged, reference, factor), psnr(np.asarray(bicubic), reference, factor)


def measure_between(upscale: Upscale, hr: Path) -> tuple[float, float]:
    """The same for factor BETWEEN, for which the small image is made from NAME_HR.png by bicubic interpolation."""
    with Image.open(hr) as image:
        whole = image.convert("RGB")
    small = (whole.width // BETWEEN, whole.height // BETWEEN)
    size = (small[0] * BETWEEN, small[1] * BETWEEN)
    reference, given = whole.crop((0, 0, *size)), whole.crop((0, 0, *size)).resize(small, Image.Resampling.BICUBIC)
    bicubic = given.resize(size, Image.Resampling.BICUBIC)
    images = (upscale(np.asarray(given), BETWEEN), np.asarray(bicubic))
    ours, other = (psnr(image, np.asarray(reference), BETWEEN) for image in images)
    return ours, other


def mean_between(upscale: Upscale, folder: Path) -> tuple[float, float]:
    """Means of `measure_between` over a set."""
    values = [measure_between(upscale, hr) for hr in sorted(folder.glob("*_HR.png"))]
    ours, bicubic = np.mean(values, axis=0)
    return float(ours), float(bicubic)


def mean(upscale: Upscale, folder: Path, factor: int) -> tuple[float, float]:
    """Means of `measure` over a set, which is a folder of such pairs."""
    values = [measure(upscale, lr, factor) for lr in sorted(folder.glob("*_LR.png"))]
    ours, bicubic = np.mean(values, axis=0)
    return float(ours), float(bicubic)
