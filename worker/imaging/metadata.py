"""The metadata of an image file that its result may keep: EXIF, XMP, IPTC, resolution and the texts of a PNG file.

What does not fit the result is left out or put right: the orientation (the result is upright), sizes, thumbnails, and
MakerNote (its offsets are only right in the original file). Places (GPS) are kept only on request. Metadata that is
damaged or very large is dropped: the pixels do not need it.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pillow_heif
from PIL import ExifTags, Image
from tifffile import TiffFile, TiffPage

from upres.core.schema import WantedMetadata
from upres.worker.imaging.boxes import boxes
from upres.worker.imaging.kinds import kind_of

MAX_BYTES = 60_000
"""Largest part of metadata in bytes that is kept; one segment of a JPEG file has at most 65,533."""
TAGS = {
    *("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "Copyright", "HostComputer", "Rating"),
    *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject", "XResolution", "YResolution", "ResolutionUnit"),
}
"""Tags of the main directory that are kept (TIFF 6.0, Exif 3.0); the others describe how the file stores its pixels."""
NOT_KEPT = {"MakerNote", "ExifInteroperabilityOffset", "GPSInfo"}
"""Tags of the Exif directory that are not kept, nor are those without a name."""
XMP_KEYWORD = "XML:com.adobe.xmp"
EXIF_OF_JPEG_2000, XMP_OF_JPEG_2000 = b"JpgTiffExif->JP2", bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""Types of boxes: as ExifTool writes EXIF; ISO 16684-1 for XMP."""
EXIF_NAMESPACE, TIFF_NAMESPACE = "{http://ns.adobe.com/exif/1.0/}", "{http://ns.adobe.com/tiff/1.0/}"
XAP_NAMESPACE, PHOTOSHOP_NAMESPACE = "{http://ns.adobe.com/xap/1.0/}", "{http://ns.adobe.com/photoshop/1.0/}"
XMP_OF_FILE = {
    XAP_NAMESPACE + "Thumbnails",
    *(EXIF_NAMESPACE + name for name in ("PixelXDimension", "PixelYDimension")),
    *(TIFF_NAMESPACE + name for name in ("Orientation", "ImageWidth", "ImageLength")),
}
"""Properties of XMP that describe the file and not the picture."""
XMP_PLACES = {
    *(PHOTOSHOP_NAMESPACE + name for name in ("City", "State", "Country")),
    *("{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}" + name for name in ("Location", "CountryCode")),
    *("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}" + name for name in ("LocationCreated", "LocationShown")),
}
"""Properties of XMP that name a place; those of coordinates are recognised by their names, whosever they are."""
COORDINATES = re.compile("gps|latitude|longitude|geo", re.IGNORECASE)
IPTC = 0x0404
"""Number of the resource with IPTC data among those of Photoshop in a JPEG file."""
IPTC_OF_TIFF = 33723
"""Tag of TIFF with the same data."""
IPTC_PLACES = {(2, number) for number in (26, 27, 90, 92, 95, 100, 101)}
"""Datasets of IPTC-IIM that name a place, from the code of a content location to the name of a country."""
MAX_DPI = 65_535
MAX_TEXTS, MAX_KEYWORD = 100, 79
"""Number of texts of a PNG file that are kept, and the longest keyword (W3C, Third Edition, section 11.3.3.1)."""


class Metadata(NamedTuple):
    """What a result keeps; empty parts are missing."""

    exif: bytes = b""
    """A TIFF structure without the bytes `Exif` before it."""
    xmp: bytes = b""
    iptc: bytes = b""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, horizontally and vertically."""
    texts: tuple[tuple[str, str], ...] = ()
    """Keywords and texts of a PNG file."""


NOTHING = Metadata()


def read(data: bytes, wanted: WantedMetadata, size: tuple[int, int]) -> Metadata:
    """Return the metadata of a file for a result of (width, height) pixels. What cannot be read is left out."""
    if wanted == "strip":
        return NOTHING
    places = wanted == "keep-all"
    exif, info = _attempt(SOURCES.get(kind_of(data) or "", _of_image), data, empty=(Image.Exif(), {}))
    return Metadata(
        _attempt(_exif, exif, places, size, empty=b""),
        _attempt(_xmp, info.get("xmp") or b"", places, empty=b""),
        _attempt(_iptc, info, places, empty=b""),
        _attempt(_dpi, info, empty=None),
        _attempt(_texts, data, places, empty=()),
    )


def _of_image(data: bytes) -> tuple[Image.Exif, dict[Any, Any]]:
    """Return the EXIF data of a file that Pillow knows, and its properties by Pillow's names."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "TIFF":
            return image.getexif(), {**image.info, "photoshop": {IPTC: _iptc_of_tiff(data)}}
        return image.getexif(), image.info


def _iptc_of_tiff(data: bytes) -> bytes:
    """Return IPTC data by tifffile: many programs write the bytes as numbers of 32 bits, of which Pillow keeps one."""
    with TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        found = page.tags.valueof(IPTC_OF_TIFF, b"") if isinstance(page, TiffPage) else b""
    return struct.pack(f"{tiff.byteorder}{len(found)}I", *found) if isinstance(found, tuple) else bytes(found)


def _of_heif(data: bytes) -> tuple[Image.Exif, dict[Any, Any]]:
    exif, info = Image.Exif(), pillow_heif.open_heif(data).info
    exif.load(info.get("exif") or b"")
    return exif, info


def _of_boxes(data: bytes) -> tuple[Image.Exif, dict[Any, Any]]:
    """Return EXIF and XMP of JPEG XL (ISO/IEC 18181-2, sections 9.5 and 9.6) and JPEG 2000; compressed ones are not."""
    exif, info = Image.Exif(), dict[Any, Any]()
    for name, start, end in boxes(data):
        kind, content = data[start : start + 16], data[start + 16 : end]
        if name == b"Exif" and end - start > 4:
            exif.load(data[start + 4 + int.from_bytes(data[start : start + 4], "big") : end])
        elif name == b"xml ":
            info["xmp"] = data[start:end]
        elif name == b"uuid" and kind == EXIF_OF_JPEG_2000:
            exif.load(content)
        elif name == b"uuid" and kind == XMP_OF_JPEG_2000:
            info["xmp"] = content
    return exif, info


SOURCES = {"HEIC": _of_heif, "JPEG XL": _of_boxes, "JPEG 2000": _of_boxes}
"""Kinds of files whose metadata Pillow does not read → what reads it."""


def _attempt(part: Any, *given: Any, empty: Any) -> Any:
    """Return a part of the metadata, or `empty` when it is damaged or too large."""
    try:
        found = part(*given)
    except Exception:  # foreign data: the libraries raise many types
        return empty
    return empty if isinstance(found, bytes) and len(found) > MAX_BYTES else found


def _exif(given: Image.Exif, places: bool, size: tuple[int, int]) -> bytes:
    made = Image.Exif()
    for tag, value in given.items():
        if ExifTags.TAGS.get(tag) in TAGS:
            made[tag] = value
    details = given.get_ifd(ExifTags.IFD.Exif)
    kept = {tag: value for tag, value in details.items() if ExifTags.TAGS.get(tag, "MakerNote") not in NOT_KEPT}
    where = dict(given.get_ifd(ExifTags.IFD.GPSInfo)) if places else {}
    if not (made or kept or where):
        return b""
    if kept:
        kept |= {ExifTags.Base.ExifImageWidth: size[0], ExifTags.Base.ExifImageHeight: size[1]}
        made.get_ifd(ExifTags.IFD.Exif).update(kept)
    if where:
        made.get_ifd(ExifTags.IFD.GPSInfo).update(where)
    return made.tobytes().removeprefix(b"Exif\0\0")


def _xmp(xmp: bytes, places: bool) -> bytes:
    """Return an XMP packet (ISO 16684-1) without what describes the file, and without places unless they are wanted."""
    if not xmp or len(xmp) > MAX_BYTES:
        return b""
    root = _parsed(xmp.strip(b"\0 \n\r\t"))
    for element in list(root.iter()):
        for name in [name for name in element.attrib if _left_out(name, places)]:
            del element.attrib[name]
        for child in [child for child in element if _left_out(child.tag, places)]:
            element.remove(child)
    made: bytes = ElementTree.tostring(root, encoding="utf-8")
    return made


def _parsed(xmp: bytes) -> ElementTree.Element:
    """Parse XML, and let its prefixes be written again as they are. Raises ValueError."""
    if b"<!" in xmp:  # XMP has no entities, with which a small text can become a very large one
        raise ValueError("XMP with a document type")
    for _, (prefix, uri) in ElementTree.iterparse(io.BytesIO(xmp), events=("start-ns",)):  # noqa: S314  # see above
        if not prefix.startswith("ns"):  # ElementTree reserves these
            ElementTree.register_namespace(prefix, uri)
    return ElementTree.fromstring(xmp)  # noqa: S314  # see above


def _left_out(name: str, places: bool) -> bool:
    local = name.rpartition("}")[2]
    return name in XMP_OF_FILE or (not places and (name in XMP_PLACES or bool(COORDINATES.search(local))))


def _iptc(info: dict[Any, Any], places: bool) -> bytes:
    """Return the datasets (IPTC-IIM 4.2, section 1.5), without those of places unless they are wanted."""
    data, at, kept = bytes((info.get("photoshop") or {}).get(IPTC, b"")), 0, []
    while at + 5 <= len(data) and data[at] == 0x1C:
        record, number, length = struct.unpack_from(">BBH", data, at + 1)
        end = at + 5 + length
        if length > 0x7FFF or end > len(data):  # an extended dataset, or damaged
            break
        if places or (record, number) not in IPTC_PLACES:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _dpi(info: dict[Any, Any]) -> tuple[float, float] | None:
    x, y = (float(number) for number in info["dpi"])
    return (x, y) if 1 <= x <= MAX_DPI and 1 <= y <= MAX_DPI else None


def _texts(data: bytes, places: bool) -> tuple[tuple[str, str], ...]:
    """Return the first texts of a PNG file, without those that other parts contain."""
    kept, left = list[tuple[str, str]](), MAX_BYTES
    for keyword, text in _texts_of_png(data):
        left -= len(keyword) + len(text)
        if left < 0 or len(kept) == MAX_TEXTS:
            break
        foreign = keyword == XMP_KEYWORD or keyword.startswith(("Raw profile type", "exif:"))
        if not foreign and (places or not COORDINATES.search(keyword)):
            kept.append((keyword, text))
    return tuple(kept)


def _texts_of_png(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield keyword and text of a PNG file's chunks tEXt, zTXt and iTXt (W3C, Third Edition, section 11.3.3)."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in TEXT_CHUNKS:
            keyword, text = TEXT_CHUNKS[kind](data[at + 8 : at + 8 + length])
            if 0 < len(keyword) <= MAX_KEYWORD:
                yield keyword, text
        at += 12 + length


def _plain(chunk: bytes) -> tuple[str, str]:
    keyword, _, text = chunk[: MAX_BYTES + 80].partition(b"\0")
    return keyword.decode("latin-1"), text.decode("latin-1")


def _compressed(chunk: bytes) -> tuple[str, str]:
    keyword, _, rest = chunk.partition(b"\0")
    return keyword.decode("latin-1"), _inflated(rest[1:]).decode("latin-1")


def _international(chunk: bytes) -> tuple[str, str]:
    keyword, _, rest = chunk.partition(b"\0")
    _, _, text = rest[2:].split(b"\0", 2) if rest[2:].count(b"\0") >= 2 else (b"", b"", b"")
    return keyword.decode("latin-1"), (_inflated(text) if rest[:1] == b"\1" else text[:MAX_BYTES]).decode(
        errors="ignore"
    )


def _inflated(data: bytes) -> bytes:
    """Decompress at most MAX_BYTES."""
    try:
        return zlib.decompressobj().decompress(data, MAX_BYTES)
    except zlib.error:
        return b""


TEXT_CHUNKS = {b"tEXt": _plain, b"zTXt": _compressed, b"iTXt": _international}
