"""Checks that the weights of a network are finite numbers of a sensible size. Reads files as bytes, without numpy.

Only the byte with the sign and the upper bits of the exponent of each number is looked at, by slices of the file: this
takes a hundredth of a second for 100 MB, and the function and the commands for operators need no numpy.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from upres.core.errors import ModelError

LARGEST_WEIGHT = 1 << 17
"""Weights of this magnitude or above are refused. Those of trained networks are below 1,000."""


class Format(NamedTuple):
    """A format of numbers, little endian: its size in bytes, and which upper bytes are below LARGEST_WEIGHT."""

    size: int
    fine: bytes


def _below(limit: int) -> bytes:
    """Return all values of an upper byte whose bits without the sign are below `limit`."""
    return bytes(value for value in range(256) if value & 0x7F < limit)


FLOAT16, BFLOAT16, FLOAT32, FLOAT64 = (
    Format(2, _below(0x7C)),  # all that are finite: the largest is 65,504
    Format(2, _below(0x48)),
    Format(4, _below(0x48)),
    Format(8, _below(0x41)),
)
"""IEEE 754 binary16, bfloat16, binary32 and binary64: 2^17 has the exponents 127 + 17 = 0x90 and 1023 + 17 = 0x410."""
SAFETENSORS = {"F16": FLOAT16, "BF16": BFLOAT16, "F32": FLOAT32, "F64": FLOAT64}
"""Floating-point types of safetensors files."""


def check_safetensors(name: str, data: bytes) -> None:
    """Raise ModelError when a tensor of a safetensors file has a number that no trained network has.

    Raises ModelError too when the file's head cannot be read.
    """
    for tensor, numbers, kind in _tensors(name, memoryview(data)):
        check(name, tensor, numbers, kind)


def check(file: str, tensor: str, numbers: memoryview, kind: Format) -> None:
    """Raise ModelError when a number is NaN, infinite, or of the magnitude LARGEST_WEIGHT or above."""
    if bytes(numbers[kind.size - 1 :: kind.size]).translate(None, kind.fine):
        raise ModelError(
            f"{file}: the tensor {tensor} has a number that is not finite, or {LARGEST_WEIGHT:,} or above, which no "
            "trained network has; the checkpoint is damaged, or its training failed. Take another one."
        )


def _tensors(name: str, data: memoryview) -> Iterator[tuple[str, memoryview, Format]]:
    """Yield name, bytes and format of each floating-point tensor of a safetensors file. Raises ModelError."""
    try:
        first = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(bytes(data[8:first]))
        head.pop("__metadata__", None)
        for tensor, about in head.items():
            begin, end = about["data_offsets"]
            if kind := SAFETENSORS.get(about["dtype"]):
                yield tensor, data[first + begin : first + end], kind
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{name} is no safetensors file ({type(error).__name__}).") from error
