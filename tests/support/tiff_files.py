"""Writes TIFF files tag by tag, also such as no library writes."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import tifffile

SHORT, LONG, UNDEFINED = 3, 4, 7
Entries = dict[int, tuple[int, Sequence[int] | bytes]]
"""Tag → its type, and its values or bytes."""
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS = (
    256,
    257,
    258,
    259,
    262,
    273,
    277,
    278,
    279,
)
NEW_SUBFILE_TYPE, PLANAR, SUB_IFDS, EXTRA, FORMAT = 254, 284, 330, 338, 339


def page(strips: list[bytes], width: int, height: int, bits: int, samples: int, photometric: int, **tags: Any) -> Any:
    """A page for `tiff`: its strips, and its entries. Further entries by name: tag_254=(SHORT, [1])."""
    rows = -(-height // len(strips)) if tags.get("tag_284") != (SHORT, [2]) else height
    entries: Entries = {
        WIDTH: (LONG, [width]), LENGTH: (LONG, [height]), BITS: (SHORT, [bits] * samples), COMPRESSION: (SHORT, [1]),
        PHOTOMETRIC: (SHORT, [photometric]), SAMPLES: (SHORT, [samples]), ROWS: (LONG, [rows]),
    }  # fmt: skip
    return strips, entries | {int(name.removeprefix("tag_")): entry for name, entry in tags.items()}


def tiff(*pages: Any, order: str = "<", sub_ifds: Sequence[Any] = ()) -> bytes:
    """A TIFF file of pages; the SubIFDs belong to the first one."""
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 0))
    link = 4
    places = [_write(out, one, order, {})[0] for one in sub_ifds]
    for number, one in enumerate(pages):
        more: Entries = {SUB_IFDS: (LONG, places)} if places and not number else {}
        start, following = _write(out, one, order, more)
        struct.pack_into(f"{order}I", out, link, start)
        link = following
    return bytes(out)


def _write(out: bytearray, one: Any, order: str, more: Entries) -> tuple[int, int]:
    """Append a page; returns the place of its directory, and of the link to the next one."""
    strips, entries = one
    offsets = []
    for strip in strips:
        out += b"\0" * (len(out) % 2)
        offsets.append(len(out))
        out += strip
    entries = entries | more | {OFFSETS: (LONG, offsets), COUNTS: (LONG, [len(strip) for strip in strips])}
    encoded = []
    for tag, (kind, values) in sorted(entries.items()):
        content = (
            values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{' HI'[kind - 2]}", *values)
        )
        if len(content) > 4:
            out += b"\0" * (len(out) % 2)
            place = struct.pack(f"{order}I", len(out))
            out += content
        else:
            place = content.ljust(4, b"\0")
        encoded.append(struct.pack(f"{order}HHI", tag, kind, len(values)) + place)
    out += b"\0" * (len(out) % 2)
    start = len(out)
    out += struct.pack(f"{order}H", len(encoded)) + b"".join(encoded) + bytes(4)
    return start, len(out) - 4


def written(values: npt.NDArray[Any], **options: Any) -> bytes:
    """A TIFF file by tifffile."""
    out = io.BytesIO()
    tifffile.imwrite(out, values, **options)
    return out.getvalue()
