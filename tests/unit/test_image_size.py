"""The size that an estimate is made for is the size of the job's image, for every kind of file."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.images import encoded
from upres.client.image_size import Size, read_size
from upres.core.errors import NotAnImage
from upres.worker.imaging import images

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}), "jpeg": ("JPEG", {}), "progressive": ("JPEG", {"progressive": True}), "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}), "tiff": ("TIFF", {}),
    "deflated": ("TIFF", {"compression": "tiff_deflate"}), "large": ("TIFF", {"big_tiff": True}), "gif": ("GIF", {}),
    "bmp": ("BMP", {}), "avif": ("AVIF", {"speed": 10}),
}  # fmt: skip
"""Kind → Pillow's name of the format, and options of `save`."""


def measured(data: bytes, folder: Path) -> Size:
    """The size that the client reads from a file."""
    (folder / "image").write_bytes(data)
    return read_size(str(folder / "image"))


def decoded(data: bytes) -> Size:
    """The size that the worker finds."""
    return images.decode(data, 10_000_000).size


@given(
    kind=st.sampled_from(sorted(KINDS)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    orientation=st.integers(0, 9),
    mode=st.sampled_from(["RGB", "L", "RGBA"]),
)
@example(kind="avif", size=(9, 5), orientation=6, mode="RGB")
@example(kind="avif", size=(9, 5), orientation=5, mode="RGBA")
@example(kind="png", size=(9, 5), orientation=6, mode="RGB")
@example(kind="webp", size=(9, 5), orientation=8, mode="RGB")
@example(kind="large", size=(9, 5), orientation=7, mode="L")
@settings(max_examples=60)
def test_the_size_is_that_of_the_job(
    tmp_path_factory: pytest.TempPathFactory, kind: str, size: Size, orientation: int, mode: str
) -> None:
    format, options = KINDS[kind]
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation if kind not in ("avif", "deflated") else min(orientation, 8)  # Pillow writes no 9
    exif[0x010F] = "A maker"
    image = Image.new("RGB" if kind in ("jpeg", "progressive") else mode, size, 7)
    data = encoded(image, format, **options, **({} if format in ("GIF", "BMP") else {"exif": exif}))
    assert measured(data, tmp_path_factory.getbasetemp()) == decoded(data)


def os2_bmp(width: int, height: int) -> bytes:
    rows = bytes((width * 3 + 3) // 4 * 4 * height)
    return b"BM" + struct.pack("<IIIIHHHH", 26 + len(rows), 0, 26, 12, width, height, 1, 24) + rows


def top_down_bmp(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (width, height)), "BMP"))
    struct.pack_into("<i", data, 22, -height)
    return bytes(data)


def exif_after_the_pixels(width: int, height: int) -> bytes:
    """A PNG file whose chunk eXIf comes after IDAT."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (width, height)), "PNG", exif=exif)
    start = data.index(b"eXIf") - 4
    end = start + 12 + struct.unpack_from(">I", data, start)[0]
    return data[:start] + data[end:-12] + data[start:end] + data[-12:]


def avif_with_exif_only(width: int, height: int) -> bytes:
    """An AVIF file with an EXIF orientation, but no property that turns it; EXIF must not turn it."""
    exif = Image.Exif()
    exif[0x0103] = 6
    data = encoded(Image.new("RGB", (width, height)), "AVIF", exif=exif)
    found = struct.pack(">HHIH", 0x0103, 3, 1, 6)
    assert data.count(found) == 1
    return data.replace(found, struct.pack(">HHIH", 0x0112, 3, 1, 6))


def frame_larger_than_its_canvas(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("P", (width, height)), "GIF"))
    struct.pack_into("<HH", data, 6, 3, 3)
    return bytes(data)


def turned_mpo(width: int, height: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    more = [Image.new("RGB", (width, height))]
    return encoded(Image.new("RGB", (width, height)), "MPO", save_all=True, append_images=more, exif=exif)


@pytest.mark.parametrize(
    ("make", "turned"),
    [
        (os2_bmp, False), (top_down_bmp, False), (exif_after_the_pixels, True), (avif_with_exif_only, False),
        (frame_larger_than_its_canvas, False), (turned_mpo, True),
    ],
)  # fmt: skip
def test_rare_files_have_the_size_of_the_job(tmp_path: Path, make: Callable[..., bytes], turned: bool) -> None:
    data = make(37, 11)
    assert measured(data, tmp_path) == ((11, 37) if turned else (37, 11)) == decoded(data)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_xmp_alone_turns_no_image(tmp_path: Path, format: str) -> None:
    """As in browsers and viewers."""
    image = Image.new("RGB", (37, 11))
    options: dict[str, Any] = {"xmp": XMP}
    if format == "TIFF":
        options = {"tiffinfo": {700: XMP}}
    assert measured(encoded(image, format, **options), tmp_path) == (37, 11)


@pytest.mark.parametrize("bare", [False, True])
def test_the_size_of_jpeg_2000_is_read_with_and_without_boxes(tmp_path: Path, bare: bool) -> None:
    assert measured(encoded(Image.new("RGB", (37, 11)), "JPEG2000", no_jp2=bare), tmp_path) == (37, 11)


def directory(order: str, following: int, **tags: int) -> bytes:
    """A directory of a TIFF file."""
    numbers = {"subfile": 254, "width": 256, "height": 257, "orientation": 274, "below": 330}
    entries = sorted((numbers[name], value) for name, value in tags.items())
    body = b"".join(struct.pack(f"{order}HHII", number, 4, 1, value) for number, value in entries)
    return struct.pack(f"{order}H", len(entries)) + body + struct.pack(f"{order}I", following)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("below", [False, True])
def test_the_size_of_a_tiff_is_that_of_its_first_page_that_is_no_thumbnail(
    tmp_path: Path, order: str, below: bool
) -> None:
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    place = {"below": 200} if below else {}
    small = directory(order, 0 if below else 200, subfile=1, width=8, height=4, **place)
    full = directory(order, 8, subfile=0, width=37, height=11, orientation=1)  # followed by the first one again
    assert measured((head + small).ljust(200, b"\0") + full, tmp_path) == (37, 11)


def bits(*numbers: tuple[int, int]) -> bytes:
    """Numbers as (value, count of bits), the lowest bit first."""
    text = "".join(f"{value:0{count}b}"[::-1] for value, count in numbers)
    return int(text[::-1], 2).to_bytes((len(text) + 7) // 8 + 8, "little")


@pytest.mark.parametrize(
    ("numbers", "size"),
    [
        ([(0, 1), (0, 2), (10, 9), (0, 3), (0, 2), (36, 9), (1, 1)], (37, 11)),
        ([(0, 1), (1, 2), (3999, 13), (0, 3), (2, 2), (99_999, 18), (0, 1), (0, 1)], (100_000, 4000)),
        ([(0, 1), (0, 2), (10, 9), (0, 3), (0, 2), (36, 9), (0, 1), (1, 1), (5, 3)], (11, 37)),  # orientation 6
        ([(1, 1), (3, 5), (0, 3), (9, 5), (1, 1)], (80, 32)),
        ([(1, 1), (3, 5), (2, 3), (1, 1)], (38, 32)),  # 12 : 10
        ([(0, 1), (0, 2), (89, 9), (5, 3), (1, 1)], (160, 90)),  # 16 : 9
    ],
)
@pytest.mark.parametrize("container", ["", "whole", "parts"])
def test_the_size_of_jpeg_xl_is_that_of_its_codestream(
    tmp_path: Path, numbers: list[tuple[int, int]], size: Size, container: str
) -> None:
    data = b"\xff\x0a" + bits(*numbers)
    if container:
        stream = box("jxlc", data) if container == "whole" else box("jxlp", bytes(4), data)
        data = box("JXL ", b"\r\n\x87\n") + box("ftyp", b"jxl \0\0\0\0jxl ") + box("Exif", bytes(40)) + stream
    assert measured(data, tmp_path) == size


def box(kind: str, *content: bytes) -> bytes:
    inside = b"".join(content)
    return struct.pack(">I4s", len(inside) + 8, kind.encode()) + inside


def heic(brand: str, properties: list[bytes], wide: bool) -> bytes:
    """The head of a HEIF file with two items: a thumbnail, whose size is the first property, and the primary item."""
    layout, flag = (">IB", 1) if wide else (">HB", 0)
    mine = range(2, len(properties) + 2)
    numbers = b"".join(struct.pack(">H", one | 0x8000) if wide else bytes([one | 0x80]) for one in mine)
    thumbnail = struct.pack(">H", 1) if wide else b"\1"
    entries = struct.pack(layout, 7, 1) + thumbnail + struct.pack(layout, 9, len(properties)) + numbers
    ipma = box("ipma", bytes([flag, 0, 0, flag]), struct.pack(">I", 2), entries)
    pitm = box("pitm", bytes([flag, 0, 0, 0]), struct.pack(">I" if wide else ">H", 9))
    iprp = box("iprp", box("ipco", ispe(8, 4), *properties), ipma)
    head = box("ftyp", brand.encode(), bytes(4), b"mif1", brand.encode()) + box("free", bytes(9))
    return head + box("meta", bytes(4), box("hdlr", bytes(24)), pitm, iprp) + box("mdat", bytes(99))


def ispe(width: int, height: int) -> bytes:
    return box("ispe", struct.pack(">III", 0, width, height))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("properties", "size"),
    [
        ([ispe(37, 11)], (37, 11)),
        ([ispe(37, 11), box("irot", b"\1")], (11, 37)),
        ([ispe(37, 11), box("irot", b"\2"), box("imir", b"\1")], (37, 11)),
        ([box("irot", b"\3"), ispe(37, 11)], (11, 37)),
        ([ispe(64, 64), box("clap", struct.pack(">8I", 37, 1, 22, 2, 0, 1, 0, 1)), box("irot", b"\1")], (11, 37)),
    ],
)
def test_the_size_of_heic_is_cropped_and_turned_by_its_properties(
    tmp_path: Path, properties: list[bytes], size: Size, wide: bool
) -> None:
    assert measured(heic("heic", properties, wide), tmp_path) == size


HEADS = [
    *(encoded(Image.new("RGB", (3, 4)), format, **options) for format, options in KINDS.values()),
    *(encoded(Image.new("RGB", (3, 4)), "JPEG2000", no_jp2=bare) for bare in (False, True)),
    heic("heic", [ispe(37, 11), box("irot", b"\1"), box("clap", bytes(32))], wide=True),
    box("JXL ", b"\r\n\x87\n") + box("jxlp", bytes(4), b"\xff\x0a" + bits((0, 1), (0, 2), (10, 9), (1, 3), (1, 1))),
]


@given(
    seed=st.sampled_from(HEADS),
    changes=st.lists(st.tuples(st.integers(0, 399), st.sampled_from([0, 1, 127, 128, 255])), max_size=5),
    cut=st.integers(0, 400),
)
@example(seed=b"MM\0+\0\x08\0\0" + b"\xff" * 8, changes=[], cut=16)
@example(seed=b"II*\0\x08\0\0\0\x01\0\x4a\x01\x04\0" + b"\xff" * 12, changes=[], cut=40)
@example(seed=box("JXL ", b"\r\n\x87\n"), changes=[], cut=12)
@settings(max_examples=200)
def test_a_damaged_file_has_no_size_or_one_of_two_numbers(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(seed[:cut])
    for place, byte in changes:
        if place < len(data):
            data[place] = byte
    try:
        width, height = measured(bytes(data), tmp_path_factory.getbasetemp())
    except NotAnImage:
        return
    assert width > 0
    assert height > 0


def test_a_file_that_is_no_image_is_told(tmp_path: Path) -> None:
    for data in (b"", b"notes", b"<svg width='9' height='9'>", b"P6 3 3 255 ", bytes(64)):
        with pytest.raises(NotAnImage, match="send a PNG, JPEG"):
            measured(data, tmp_path)
