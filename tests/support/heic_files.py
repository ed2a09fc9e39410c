"""Writes HEIC files, which only pillow-heif can."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def heic(samples: npt.NDArray[np.generic], **options: Any) -> bytes:
    """A file of samples, (height, width, channels), of 8 or 16 bits; those of 16 are stored with 10."""
    height, width, channels = samples.shape
    mode = MODES[channels] + (";16" if samples.dtype == np.uint16 else "")
    out = io.BytesIO()
    file = pillow_heif.from_bytes(mode, (width, height), samples.tobytes())
    file.save(out, **{"quality": -1, "chroma": 444, **options})
    return out.getvalue()
