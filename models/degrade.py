"""Degrades patches like real photos: blur, noise, JPEG (a simplified version of Wang et al. 2021, arXiv 2107.10833)."""

import math

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29),
    *(51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121),
    *(120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""JPEG's luma quantisation table (ITU-T T.81, annex K), row by row; used for all planes."""
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""The matrix from RGB to YCbCr (ITU-T T.871)."""
BLUR_SHARE, NOISE_SHARE, GREY_NOISE_SHARE, JPEG_SHARE = 0.5, 0.4, 0.4, 0.5
"""Probabilities: of blur per batch, of noise and JPEG per image, and that noise is the same in all channels."""
BLUR_SIGMA = (0.3, 2.0)
"""Range of the standard deviation of the blur, in pixels of the large patch."""
MAX_NOISE = 12 / 255
"""Largest standard deviation of the noise, for values in [0, 1]."""
QUALITY = (40.0, 95.0)
"""Range of the JPEG quality."""


def degrade(large: Tensor, factor: int) -> Tensor:
    """Downscale and degrade: (count, 3, side·factor, side·factor) in [0, 1] → (count, 3, side, side), rounded.

    `side` must be a multiple of 8. Values of the result are multiples of 1/255.
    """
    image = _blurred(large) if torch.rand(()) < BLUR_SHARE else large
    image = _with_noise(_smaller(image, factor))
    squeezed = _some(image, JPEG_SHARE)
    quality = torch.empty(len(image), device=image.device).uniform_(*QUALITY)
    image = torch.where(squeezed, jpeg(image.clamp(0, 1), quality), image)
    return ((image.clamp(0, 1) * 255).round() / 255).contiguous(memory_format=torch.channels_last)


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """JPEG's loss, without chroma subsampling, on (count, 3, height, width) in [0, 1]; quality (count,) in 1 to 100."""
    count, channels, height, width = image.shape
    on = image.device
    transform, matrix = _dct(on), torch.tensor(YCC, device=on)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    table = torch.tensor(LUMA, device=on, dtype=torch.float32).reshape(8, 8)
    steps = ((table * scale[:, None, None] + 50) / 100).floor().clamp(1, 255)[:, None, None, None]
    planes = torch.einsum("oc,bchw->bohw", matrix, image * 255 - 128)
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    blocks = transform.T @ (((transform @ blocks @ transform.T) / steps).round() * steps) @ transform
    planes = blocks.permute(0, 1, 2, 4, 3, 5).reshape(image.shape)
    return ((torch.einsum("oc,bchw->bohw", torch.linalg.inv(matrix), planes) + 128) / 255).clamp(0, 1)


def _dct(on: torch.device) -> Tensor:
    """The 8×8 matrix of the discrete cosine transform (type II, orthonormal)."""
    k = torch.arange(8, device=on, dtype=torch.float32)
    scale = torch.where(k == 0, math.sqrt(1 / 8), 0.5)
    return torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * scale[:, None]


def _blurred(image: Tensor) -> Tensor:
    sigma = float(torch.empty(()).uniform_(*BLUR_SIGMA))
    along = torch.arange(-6, 7, device=image.device, dtype=torch.float32)
    bell = torch.exp(-(along**2) / (2 * sigma**2))
    kernel = (bell / bell.sum()).expand(3, 1, 1, -1)
    image = functional.conv2d(functional.pad(image, (6, 6, 6, 6), mode="reflect"), kernel, groups=3)
    return functional.conv2d(image, kernel.transpose(-1, -2), groups=3)


def _smaller(image: Tensor, factor: int) -> Tensor:
    way = ("bicubic", "bilinear", "area")[int(torch.randint(3, ()))]
    if way == "area":
        return functional.avg_pool2d(image, factor)
    return functional.interpolate(image, scale_factor=1 / factor, mode=way, antialias=True)


def _with_noise(image: Tensor) -> Tensor:
    noise = torch.randn_like(image)
    noise = torch.where(_some(image, GREY_NOISE_SHARE), noise[:, :1], noise)
    strength = torch.rand(len(image), 1, 1, 1, device=image.device) * MAX_NOISE
    return torch.where(_some(image, NOISE_SHARE), image + noise * strength, image)


def _some(image: Tensor, share: float) -> Tensor:
    """A random mask of images in a batch, (count, 1, 1, 1); each is True with probability `share`."""
    return torch.rand(len(image), 1, 1, 1, device=image.device) < share
