"""Makes ICC profiles (ICC.1:2022, version 4) of colours that are described by numbers."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

D50 = np.array([0.9642, 1.0, 0.8249])
"""XYZ of the white of all ICC profiles."""
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""XYZ → the responses in which the white is adapted (ICC.1:2022, annex E)."""
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""IEC 61966-2-1; the numbers are those of `tone_curve`."""
VIDEO_CURVE = (2.4,)
"""ITU-R BT.1886, the curve of screens for video that was made by ITU-R BT.709's formula for cameras."""


class Primaries(NamedTuple):
    """The chromaticities (CIE 1931 x, y) of white, red, green and blue."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


def rgb_profile(primaries: Primaries, curve: Sequence[float]) -> bytes:
    """Return the profile of RGB with these primaries. `curve` has the numbers of `tone_curve`.

    Raises ValueError when the chromaticities are impossible.
    """
    adaptation, columns = _columns(primaries)
    tags = {
        **_NAMED,
        b"wtpt": _xyz(D50),
        b"chad": _type(b"sf32", _fixed(adaptation.ravel())),
        b"rXYZ": _xyz(columns[:, 0]),
        b"gXYZ": _xyz(columns[:, 1]),
        b"bXYZ": _xyz(columns[:, 2]),
        b"rTRC": tone_curve(curve),
        b"gTRC": tone_curve(curve),
        b"bTRC": tone_curve(curve),
    }
    return _profile(b"RGB ", tags)


def gray_profile(curve: Sequence[float]) -> bytes:
    """Return the profile of gray. `curve` has the numbers of `tone_curve`."""
    return _profile(b"GRAY", {**_NAMED, b"wtpt": _xyz(D50), b"kTRC": tone_curve(curve)})


def tone_curve(curve: Sequence[float]) -> bytes:
    """Return the tag of a curve from samples to light, both from 0 to 1 (section 10.18).

    One number g: light = sample^g. Five numbers g, a, b, c, d: light = (a · sample + b)^g from d on, c · sample below.
    """
    kind = {1: 0, 5: 3}[len(curve)]
    return _type(b"para", struct.pack(">HH", kind, 0) + _fixed(curve))


def _columns(primaries: Primaries) -> tuple[Matrix, Matrix]:
    """Return the matrix that adapts the white to D50, and the one from linear RGB to XYZ, adapted."""
    white = _from_xy(primaries.white)
    colours = np.stack([_from_xy(one) for one in primaries[1:]], axis=1)
    try:
        columns = colours * np.linalg.solve(colours, white)
        gains = np.diag((BRADFORD @ D50) / (BRADFORD @ white))
    except np.linalg.LinAlgError:
        raise ValueError("the primaries are on one line") from None
    adaptation: Matrix = np.linalg.solve(BRADFORD, gains @ BRADFORD)
    adapted = adaptation @ columns
    if not (np.isfinite(adapted).all() and (np.abs(adapted) < 4).all()):
        raise ValueError("the primaries are impossible")
    return adaptation, adapted


def _from_xy(chromaticity: tuple[float, float]) -> Matrix:
    """Return XYZ with Y = 1. Raises ValueError."""
    x, y = chromaticity
    if not y > 0:
        raise ValueError("a chromaticity is impossible")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _profile(colours: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Join header, table and tags (section 7). Tags with the same data share it."""
    table, data, places = [], b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        if tag not in places:
            places[tag] = start + len(data)
            data += tag + bytes(-len(tag) % 4)
        table.append(struct.pack(">4sII", name, places[tag], len(tag)))
    head = struct.pack(">I4sI4s4s4s", start + len(data), bytes(4), 0x04400000, b"mntr", colours, b"XYZ ")
    head += struct.pack(">6H4s4s", 2026, 1, 1, 0, 0, 0, b"acsp", bytes(4)).ljust(44, b"\0") + _fixed(D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + b"".join(table) + data


def _type(name: bytes, data: bytes) -> bytes:
    return name + bytes(4) + data


def _xyz(values: Sequence[float] | Matrix) -> bytes:
    return _type(b"XYZ ", _fixed(values))


def _text(text: str) -> bytes:
    """Return a multiLocalizedUnicode tag with one English text (section 10.15)."""
    encoded = text.encode("utf-16-be")
    return _type(b"mluc", struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded)


def _fixed(values: Sequence[float] | Matrix) -> bytes:
    """Return s15Fixed16Numbers (section 4.6)."""
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


_NAMED = {b"desc": _text("upres: as described by the file"), b"cprt": _text("CC0")}
"""Tags that every profile has."""
