"""Metadata of results: nothing by default; on request all that is still right, and places only with keep-all."""

import json
import os
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, IptcImagePlugin, PngImagePlugin

from tests.support.images import encoded, opened
from tests.support.result_files import result_file
from tests.support.tiff_files import written
from upres.core.errors import UndecodableImage
from upres.core.schema import OutputFormat, WantedMetadata
from upres.core.sizes import WantedSize
from upres.worker.imaging import decoding, images, metadata
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Pictures

ENCODERS = Encoders(jobs=1)
SIZE, FACTOR = (30, 20), 2
FORMATS = ["PNG", "JPEG", "WEBP"]
RESULTS = ["png", "jpeg", "webp", "avif", "tiff"]
XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" exif:GPSLatitude="48,8.5N" exif:PixelXDimension="20">
<dc:rights>Ada &amp; Grace</dc:rights><exif:GPSLongitude>11,34.9E</exif:GPSLongitude>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
PLACE: dict[int, Any] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (48.0, 8.0, 30.0)}


def exif(orientation: int = 6) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Orientation] = orientation
    made[ExifTags.Base.Make] = "Camera"
    made[ExifTags.Base.Copyright] = "Ada"
    made[ExifTags.Base.ImageWidth] = 20
    made.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.DateTimeOriginal: "2026:01:02 03:04:05",
            ExifTags.Base.ISOSpeedRatings: 400,
            ExifTags.Base.MakerNote: b"secret",
            ExifTags.Base.ExifImageWidth: 20,
        }
    )
    made.get_ifd(ExifTags.IFD.GPSInfo).update(PLACE)
    return made


def photo(format: str, **options: Any) -> bytes:
    """An image of 20 × 30 pixels, turned by its EXIF to 30 × 20."""
    named = {"xmp": XMP, "exif": exif(), "dpi": (300, 300), **options}
    if format == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Title", "A cat", zip=True)
        texts.add_itxt("Author", "Ada Ω")
        texts.add_text("Raw profile type exif", "00")
        texts.add_itxt("XML:com.adobe.xmp", named.pop("xmp").decode())
        named["pnginfo"] = texts
    return encoded(Image.new("RGB", (20, 30), (200, 100, 50)), format, **named)


def result(data: bytes, wanted: WantedMetadata, format: OutputFormat = "png") -> Image.Image:
    picture = images.decode(data, 10_000, wanted, WantedSize(FACTOR))
    rows = picture.pixels.repeat(FACTOR, 0).repeat(FACTOR, 1)
    return opened(ENCODERS.file(Pictures((picture,)), [result_file(picture, FACTOR, format)], [rows]))


@pytest.mark.parametrize("given", FORMATS)
@pytest.mark.parametrize("format", RESULTS)
def test_exif_is_kept_and_put_right(given: str, format: OutputFormat) -> None:
    image = result(photo(given), "keep", format)
    assert image.size == (SIZE[0] * FACTOR, SIZE[1] * FACTOR)
    found = image.getexif()
    details = found.get_ifd(ExifTags.IFD.Exif)
    assert (found[ExifTags.Base.Make], found[ExifTags.Base.Copyright]) == ("Camera", "Ada")
    assert details[ExifTags.Base.DateTimeOriginal] == "2026:01:02 03:04:05"
    assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == image.size
    assert found.get(ExifTags.Base.Orientation, 1) == 1
    of_file = {ExifTags.Base.ImageWidth} if format != "tiff" else set()
    assert not {*of_file, ExifTags.Base.MakerNote} & {*found, *details}
    assert not found.get_ifd(ExifTags.IFD.GPSInfo)


@pytest.mark.parametrize("given", FORMATS)
@pytest.mark.parametrize("format", RESULTS)
def test_xmp_is_kept_without_places_and_without_what_describes_the_file(given: str, format: OutputFormat) -> None:
    xmp = result(photo(given), "keep", format).info["xmp"]
    assert b"Ada &amp; Grace" in xmp
    assert b"dc:rights" in xmp
    for gone in (b"GPS", b"Orientation", b"PixelXDimension"):
        assert gone not in xmp


@pytest.mark.parametrize("format", RESULTS)
def test_places_are_kept_only_on_request(format: OutputFormat) -> None:
    image = result(photo("JPEG"), "keep-all", format)
    assert dict(image.getexif().get_ifd(ExifTags.IFD.GPSInfo)) == PLACE
    assert b"48,8.5N" in image.info["xmp"]
    assert b"11,34.9E" in image.info["xmp"]


@pytest.mark.parametrize("given", FORMATS)
@pytest.mark.parametrize("format", RESULTS)
def test_nothing_is_kept_by_default(given: str, format: OutputFormat) -> None:
    image = result(photo(given), "strip", format)
    assert not {ExifTags.Base.Make, ExifTags.Base.Copyright, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo} & {
        *image.getexif()
    }
    of_file = {"dpi"} if format in ("jpeg", "tiff") else set()
    assert not {"xmp", "exif", "photoshop", "Title", "dpi"} & set(image.info) - of_file


def test_resolution_and_texts_of_a_png_are_kept() -> None:
    image = result(photo("PNG"), "keep")
    assert [round(number) for number in image.info["dpi"]] == [300, 300]
    assert (image.info["Title"], image.info["Author"]) == ("A cat", "Ada Ω")
    assert "Raw profile type exif" not in image.info
    for format in ("jpeg", "tiff"):
        assert [round(number) for number in result(photo("JPEG"), "keep", format).info["dpi"]] == [300, 300]


@pytest.mark.parametrize("format", ["jpeg", "tiff"])
def test_iptc_of_a_jpeg_is_kept(format: OutputFormat) -> None:
    record = b"\x1c\x02\x69\x00\x05Title"
    resource = b"8BIM\x04\x04\0\0" + len(record).to_bytes(4, "big") + record
    segment = b"Photoshop 3.0\0" + resource
    given = photo("JPEG", extra=b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment)
    found = IptcImagePlugin.getiptcinfo(result(given, "keep", format))  # type: ignore[arg-type]
    assert found == {(2, 105): b"Title"}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", "BI")
def test_iptc_of_a_tiff_is_kept_in_a_jpeg(order: str, kind: str) -> None:
    record = b"\x1c\x02\x69\x00\x05Title\0\0"  # filled up to whole numbers of 32 bits, as many programs write it
    value = record if kind == "B" else struct.unpack(f"{order}3I", record)
    given = written(
        np.zeros((20, 30, 3), np.uint8),
        photometric="rgb",
        byteorder=order,
        extratags=[(33723, kind, len(value), value)],
    )
    found = IptcImagePlugin.getiptcinfo(result(given, "keep", "jpeg"))  # type: ignore[arg-type]
    assert found == {(2, 105): b"Title"}


def test_a_tiff_gives_its_exif_but_not_the_tags_of_its_own_layout() -> None:
    made = exif(1)
    found = result(encoded(Image.new("RGB", (20, 30)), "TIFF", exif=made), "keep").getexif()
    assert found[ExifTags.Base.Make] == "Camera"
    assert not {ExifTags.Base.StripOffsets, ExifTags.Base.BitsPerSample, ExifTags.Base.ImageWidth} & set(found)


@pytest.mark.parametrize(
    "xmp",
    [b"<a", b"<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>", b"<a>" + b"b" * 70_000 + b"</a>", b"\0", b"<a/>" * 3],
)
def test_damaged_or_large_xmp_is_left_out(xmp: bytes) -> None:
    image = result(photo("WEBP", xmp=xmp), "keep")
    assert "xmp" not in image.info
    assert image.getexif()[ExifTags.Base.Make] == "Camera"


def test_texts_that_would_become_very_large_are_cut() -> None:
    texts = PngImagePlugin.PngInfo()
    for number in range(40):
        texts.add(b"zTXt", b"Comment%d\0\0" % number + zlib.compress(b"a" * 50_000))
    data = encoded(Image.new("RGB", SIZE), "PNG", pnginfo=texts)
    kept = metadata.read(data, "keep", SIZE).texts
    assert sum(len(text) for _, text in kept) <= metadata.MAX_BYTES


@given(st.data())
def test_damaged_files_give_less_metadata_and_no_error(data: st.DataObject) -> None:
    file = bytearray(photo(data.draw(st.sampled_from(FORMATS))))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    metadata.read(bytes(file), "keep-all", SIZE)


def test_a_decoder_returns_the_metadata() -> None:
    with Decoders(1, 10_000) as decoders:
        for format in FORMATS:
            data = photo(format)
            here, there = (
                one(data, 10_000, "keep-all", WantedSize(FACTOR)) for one in (images.decode, decoders.decode)
            )
            assert here.metadata == there.metadata
            assert here.metadata.exif
            assert here.metadata.xmp
        assert decoders.decode(photo("PNG"), 10_000).metadata == metadata.NOTHING


def test_random_bytes_are_no_metadata() -> None:
    assert metadata.read(os.urandom(1000), "keep", SIZE) == metadata.NOTHING


OTHER_PLACES = XMP.replace(
    b"<dc:rights>",
    b'<a:GpsLatitude xmlns:a="http://www.dji.com/drone-dji/1.0/">1</a:GpsLatitude>'
    b'<p:City xmlns:p="http://ns.adobe.com/photoshop/1.0/">Berlin</p:City>'
    b'<i:Location xmlns:i="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">Home</i:Location>'
    b'<e:LocationCreated xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">Home</e:LocationCreated>'
    b'<x2:Thumbnails xmlns:x2="http://ns.adobe.com/xap/1.0/">AAAA</x2:Thumbnails><dc:rights>',
)


def test_other_places_in_xmp_and_thumbnails_are_left_out() -> None:
    data = photo("WEBP", xmp=OTHER_PLACES)
    kept = metadata.read(data, "keep", SIZE).xmp
    assert b"Ada" in kept
    for place in (b"Latitude", b"Berlin", b"Home", b"Thumbnails"):
        assert place not in kept
    every = metadata.read(data, "keep-all", SIZE).xmp
    assert all(place in every for place in (b"Latitude", b"Berlin", b"Home"))
    assert b"Thumbnails" not in every


def test_places_in_iptc_and_in_texts_are_left_out() -> None:
    datasets = {105: b"Title", 90: b"Berlin", 92: b"Home", 101: b"Germany"}
    record = b"".join(
        b"\x1c\x02" + bytes([number]) + len(text).to_bytes(2, "big") + text for number, text in datasets.items()
    )
    info = {"photoshop": {metadata.IPTC: record}}
    assert metadata._iptc(info, places=True) == record
    assert metadata._iptc(info, places=False) == b"\x1c\x02\x69\x00\x05Title"
    assert metadata._iptc({"photoshop": {metadata.IPTC: record[:-3]}}, places=False) == b"\x1c\x02\x69\x00\x05Title"
    texts = PngImagePlugin.PngInfo()
    for keyword in ("exif:GPSLatitude", "GPSPosition", "Title"):
        texts.add_text(keyword, "52/1")
    data = encoded(Image.new("RGB", SIZE), "PNG", pnginfo=texts)
    assert metadata.read(data, "keep", SIZE).texts == (("Title", "52/1"),)


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"tEXt", b"a" * 60_000)] * 9,
        [(b"zTXt", b"a" * 500_000 + b"\0\0")],
        [(b"tEXt", b"k\0")] * 60_000,
        [(b"tEXt", b"")],
    ],
)
def test_many_or_malformed_texts_do_not_fail_an_image(chunks: list[tuple[bytes, bytes]]) -> None:
    texts = PngImagePlugin.PngInfo()
    for kind, content in chunks:
        texts.add(kind, content)
    data = encoded(Image.new("RGB", SIZE), "PNG", pnginfo=texts)
    with Decoders(1, 10_000) as decoders:
        kept = decoders.decode(data, 10_000, "keep", WantedSize(2)).metadata.texts
    assert len(kept) <= metadata.MAX_TEXTS
    assert all(0 < len(keyword) <= metadata.MAX_KEYWORD for keyword, _ in kept)


@pytest.mark.parametrize(
    "said", [{"dpi": [float("nan"), 1]}, {"dpi": [1e300, 1]}, {"dpi": [0, 1]}, {"metadata": {"exif": 1 << 30}}]
)
def test_a_decoder_that_lies_about_metadata_fails_its_image_only(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]
) -> None:
    loads = json.loads
    with Decoders(1, 10_000) as decoders:
        decoders.start()
        monkeypatch.setattr(
            "upres.worker.imaging.decoding.json.loads", lambda text: {**loads(text), **said} if text[:1] == b"{" else []
        )
        with pytest.raises(UndecodableImage):
            decoders.decode(photo("PNG"), 10_000, "keep", WantedSize(2))


@pytest.mark.parametrize(
    "texts", [[["", "a"]], [["a" * 80, "a"]], [["Ω", "a"]], [["a", "\ud800"]], [["a"]], [["a", "b"]] * 101]
)
def test_impossible_texts_of_a_decoder_are_refused(texts: list[list[str]]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decoding._texts(texts)
