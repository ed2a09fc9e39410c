"""The boxes of a file in a container of ISO (ISO/IEC 14496-12, section 4.2), as JPEG XL and JPEG 2000 have them."""

from collections.abc import Iterator


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of the content of each box in a container."""
    start = 0
    while start + 8 <= len(data):
        length, name, content = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], start + 8
        if length == 1:
            length, content = int.from_bytes(data[start + 8 : start + 16], "big"), start + 16
        end = start + length if length else len(data)
        if end < content:
            return
        yield name, content, min(end, len(data))
        start = end
