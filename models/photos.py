"""Training patches of photos. All photos are on the device, where patches are cut and downscaled."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from upres.core.errors import ModelError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SMALLEST = 300
"""Photos with a shorter side, in pixels, are left out: the patches for factor 4, with margin, would not fit."""
MARGIN = 4
"""Pixels cut from each side of a low-resolution patch, so that border pixels were downscaled from real neighbours."""
MAX_WEIGHT = 4.0
"""Largest sampling weight: a large photo is drawn at most this many times as often as one of average area."""


class Photos(NamedTuple):
    """Many images in one flat uint8 tensor, on a device."""

    pixels: Tensor
    shapes: Tensor
    """Offset in `pixels`, height and width of each image, (count, 3)."""
    weights: Tensor
    """Sampling weight of each image, proportional to its area up to MAX_WEIGHT, (count,)."""

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "Photos":
        """Load all photos below a folder.

        Raises ModelError when none is at least SMALLEST pixels on each side, or when a file cannot be read.
        """
        flat, shapes, offset = [], [], 0
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
            pixels = _read(path)
            if min(pixels.shape[:2]) >= SMALLEST:
                flat.append(torch.from_numpy(pixels.reshape(-1).copy()))
                shapes.append((offset, *pixels.shape[:2]))
                offset += pixels.size
        if not flat:
            raise ModelError(f"{folder}: there are no photos of at least {SMALLEST}×{SMALLEST} pixels to train on.")
        table = torch.tensor(shapes, device=device)
        areas = (table[:, 1] * table[:, 2]).float()
        return cls(torch.cat(flat).to(device), table, (areas / areas.mean()).clamp(max=MAX_WEIGHT))

    def large(self, count: int, side: int) -> Tensor:
        """Random patches, (count, 3, side, side), float in [0, 1], randomly flipped and transposed."""
        device = self.pixels.device
        chosen = torch.multinomial(self.weights, count, replacement=True)
        offset, height, width = self.shapes[chosen].unbind(1)
        top = (torch.rand(count, device=device) * (height - side)).long()
        left = (torch.rand(count, device=device) * (width - side)).long()
        along = torch.arange(side, device=device)
        rows = (top[:, None] + along)[:, None, :, None] * width[:, None, None, None]
        columns = (left[:, None] + along)[:, None, None, :]
        channel = torch.arange(3, device=device)[None, :, None, None]
        patches = self.pixels[offset[:, None, None, None] + (rows + columns) * 3 + channel].float() / 255
        return _turned(patches)

    def pairs(self, count: int, side: int, factor: int) -> tuple[Tensor, Tensor]:
        """Pairs of patches: (count, 3, side, side) and (count, 3, side·factor, side·factor), float in [0, 1].

        Downscaling is antialiased bicubic with a = -0.5, as in MATLAB's imresize, rounded to grey levels.
        """
        large = self.large(count, (side + 2 * MARGIN) * factor)
        small = functional.interpolate(large, scale_factor=1 / factor, mode="bicubic", antialias=True)
        small = (small.clamp(0, 1) * 255).round() / 255
        inner = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
        outer = slice(MARGIN * factor, -MARGIN * factor), slice(MARGIN * factor, -MARGIN * factor)
        return small[:, :, *inner].contiguous(memory_format=torch.channels_last), large[:, :, *outer].contiguous()


def _turned(patches: Tensor) -> Tensor:
    """The whole batch in one random of the eight orientations of a square."""
    coins = torch.rand(3)
    if coins[0] < 0.5:
        patches = patches.flip(-1)
    if coins[1] < 0.5:
        patches = patches.transpose(-1, -2)
    return patches.flip(-2) if coins[2] < 0.5 else patches


def _read(path: Path) -> npt.NDArray[np.uint8]:
    """Read a photo as RGB. Raises ModelError when it is none."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises errors of many types for damaged files
        raise ModelError(f"{path} is no photo that can be read ({type(error).__name__}); take it out.") from error
