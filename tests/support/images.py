"""Helpers that encode, open and compare images."""

import io
from typing import Any

import numpy as np
from PIL import Image

from tests.support.paths import SAMPLES


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def picture(number: int) -> bytes:
    """A PNG file of 48×32 pixels in one colour, which differs for each number below 65,536."""
    return encoded(Image.new("RGB", (48, 32), (number % 256, number // 256, 7)), "PNG")


def numbered_photo(number: int) -> bytes:
    """Return a PNG file with 330×170 pixels of a photo, which differs for each number below 256.

    In small tiles a worker needs some seconds for it.
    """
    with Image.open(SAMPLES / "coffee.png") as image:
        cut = image.convert("RGB").crop((0, 0, 330, 170))
    cut.putpixel((0, 0), (number, 0, 0))
    return encoded(cut, "PNG")


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def psnr(image: Image.Image, reference: Image.Image) -> float:
    difference = np.asarray(image.convert("RGB"), float) - np.asarray(reference.convert("RGB"), float)
    return float(10 * np.log10(255**2 / max(float(np.mean(difference**2)), 1e-9)))
