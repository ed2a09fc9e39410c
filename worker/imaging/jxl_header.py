"""The header of a JPEG XL file (ISO/IEC 18181-1, Annex D; boxes: 18181-2). Pure: bytes in, values out.

imagecodecs tells neither the size before it decodes nor the colours, so both are read here.
"""

from typing import NamedTuple

from upres.core.errors import TruncatedImage
from upres.worker.imaging.boxes import boxes

BARE = b"\xff\x0a"
"""First bytes of a codestream without a container."""
CONTAINER = b"\0\0\0\x0cJXL "
MOST_BYTES = 1 << 12
"""Longest header in bytes that is read."""
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height, by the number in the header, which begins with 1."""
ALPHA, DEPTH, SPOT, SELECTION, BLACK, CFA = range(6)
"""Types of extra channels."""
SRGB, LINEAR = "sRGB", "linear sRGB"
"""Names of the colours that can be shown."""
RGB, GRAY = 0, 1
"""Colour spaces. With the white point D65, the primaries and the curve of sRGB (numbers 1, 1, 13) they are sRGB."""
LINEAR_CURVE, SRGB_CURVE = 8, 13
CURVE_BITS, LEAST_CURVE = 4, 2
"""Curves from LEAST_CURVE on have CURVE_BITS bits, for the difference from it."""
CURVES = {1: "BT.709", 2: "unknown", 8: "linear", 13: "sRGB", 16: "PQ", 17: "DCI", 18: "HLG"}


class Header(NamedTuple):
    """What has to be known before a JPEG XL file is decoded."""

    width: int
    height: int
    """In pixels, as stored: before the orientation is applied."""
    bits: int
    """Bits per sample."""
    floating: bool
    extra: tuple[int, ...]
    """Types of the channels after the colours."""
    premultiplied: bool
    """Whether colours were multiplied with alpha."""
    lossy: bool
    colours: str
    """SRGB, LINEAR, or the name of other colours."""
    curve_at: int | None = None
    """Where the codestream says which curve the samples have: the number of the first of its four bits. None where
    it does not say it in four bits."""
    animated: bool = False


class _Bits:
    """Reads numbers from bytes, the lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)
        self._count = self._left

    @property
    def at(self) -> int:
        """Number of bits that were read."""
        return self._count - self._left

    def u(self, count: int) -> int:
        """Read `count` bits. Raises TruncatedImage when there are fewer."""
        if count > self._left:
            raise TruncatedImage("The JPEG XL file is incomplete (its header ends early); send it again, complete.")
        number = self._value & ((1 << count) - 1)
        self._value, self._left = self._value >> count, self._left - count
        return number

    def u32(self, *choices: tuple[int, int]) -> int:
        """Read one of four kinds of numbers: each choice is what is added, and the count of bits."""
        added, count = choices[self.u(2)]
        return added + self.u(count)

    def enum(self) -> int:
        return self.u32((0, 0), (1, 0), (2, 4), (18, 6))


def header(data: bytes) -> Header:
    """Read the header of a JPEG XL file. Raises TruncatedImage when it is damaged."""
    bits = _Bits(_codestream(data)[2:MOST_BYTES])
    width, height = _size(bits)
    if bits.u(1):  # all default
        return Header(width, height, 8, False, (), False, True, SRGB)
    animated = bool(bits.u(1)) and _is_animated(bits)
    floating, depth = _depth(bits)
    bits.u(1)
    extra = [_channel(bits) for _ in range(bits.u32((0, 0), (1, 0), (2, 4), (1, 12)))]
    lossy = bool(bits.u(1))
    types, premultiplied = tuple(kind for kind, _ in extra), any(multiplied for _, multiplied in extra)
    colours = _colours(bits)
    curve_at = 16 + bits.at - CURVE_BITS if colours == LINEAR else None
    return Header(width, height, depth, floating, types, premultiplied, lossy, colours, curve_at, animated)


def _codestream(data: bytes) -> bytes:
    """Return the beginning of the codestream, which a container may hold in one box or in several."""
    if not data.startswith(CONTAINER):
        return data[:MOST_BYTES]
    for name, start, end in boxes(data):
        if name in (b"jxlc", b"jxlp"):
            start += 4 * (name == b"jxlp")
            return data[start : min(end, start + MOST_BYTES)]
    raise TruncatedImage("The JPEG XL file is incomplete (it has no codestream); send it again, complete.")


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.u(1)

    def side() -> int:
        return 8 * (1 + bits.u(5)) if small else bits.u32((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    ratio = bits.u(3)
    if not ratio:
        return side(), height
    of_width, of_height = RATIOS[ratio - 1]
    return height * of_width // of_height, height


def _is_animated(bits: _Bits) -> bool:
    """Skip orientation (the decoder applies it), intrinsic size and preview; return whether it is an animation."""
    bits.u(3)
    if bits.u(1):
        _size(bits)
    if bits.u(1):
        eighths = bits.u(1)

        def side() -> None:
            bits.u32(*(((16, 0), (32, 0), (1, 5), (33, 9)) if eighths else ((1, 6), (65, 8), (321, 10), (1345, 12))))

        side()
        if not bits.u(3):
            side()
    if animated := bool(bits.u(1)):
        bits.u32((100, 0), (1000, 0), (1, 10), (1, 30))
        bits.u32((1, 0), (1001, 0), (1, 8), (1, 10))
        bits.u32((0, 0), (0, 3), (0, 16), (0, 32))
        bits.u(1)
    return animated


def _depth(bits: _Bits) -> tuple[bool, int]:
    """Return whether samples are floating-point numbers, and their bits."""
    if not bits.u(1):
        return False, bits.u32((8, 0), (10, 0), (12, 0), (1, 6))
    depth = bits.u32((32, 0), (16, 0), (24, 0), (1, 6))
    bits.u(4)
    return True, depth


def _channel(bits: _Bits) -> tuple[int, bool]:
    """Return the type of an extra channel, and whether it is alpha that the colours were multiplied with."""
    if bits.u(1):
        return ALPHA, False
    kind = bits.enum()
    _depth(bits)
    bits.u32((0, 0), (3, 0), (4, 0), (1, 3))
    bits.u(8 * bits.u32((0, 0), (0, 4), (16, 5), (48, 10)))
    if kind == ALPHA:
        return kind, bool(bits.u(1))
    if kind == SPOT:
        bits.u(64)
    if kind == CFA:
        bits.u32((1, 0), (0, 2), (3, 4), (19, 8))
    return kind, False


def _colours(bits: _Bits) -> str:
    """Return SRGB, LINEAR, or the name of other colours."""
    if bits.u(1):
        return SRGB
    profile, space = bits.u(1), bits.enum()
    if profile:
        return "of an ICC profile"
    if space not in (RGB, GRAY):
        return "that are unknown"
    white = bits.enum()
    if white == 2:
        return "with an own white point"
    primaries = bits.enum() if space == RGB else 1
    if primaries == 2:
        return "with own primaries"
    gamma = bits.u(1)
    curve = 0 if gamma else bits.enum()
    if (white, primaries, curve) == (1, 1, SRGB_CURVE):
        return SRGB
    if (white, primaries, curve) == (1, 1, LINEAR_CURVE):
        return LINEAR
    return f"with white point {white}, primaries {primaries} and curve {CURVES.get(curve, 'of a gamma')}"
