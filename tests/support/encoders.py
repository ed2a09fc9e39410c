"""The encoders of imagecodecs, which return bytes or a bytearray, as functions that return bytes."""

from typing import Any

import imagecodecs
import numpy.typing as npt

Pixels = npt.NDArray[Any]


def avif_encode(pixels: Pixels, **options: Any) -> bytes:
    return bytes(imagecodecs.avif_encode(pixels, **options))


def jpeg2k_encode(pixels: Pixels, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, **options))


def jpeg8_encode(pixels: Pixels, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, **options))


def jpegls_encode(pixels: Pixels) -> bytes:
    return bytes(imagecodecs.jpegls_encode(pixels))


def jpegxl_encode(pixels: Pixels, **options: Any) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(pixels, **options))


def jpegxl_encode_jpeg(data: bytes) -> bytes:
    return bytes(imagecodecs.jpegxl_encode_jpeg(data))


def png_encode(pixels: Pixels) -> bytes:
    return bytes(imagecodecs.png_encode(pixels))
