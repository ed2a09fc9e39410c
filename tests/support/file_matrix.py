"""The matrix of image files: what each kind of input has, and what each format of a result can have.

tests/system/test_file_matrix.py tries each combination on the whole system, and compares pixels. The tables in
docs/files.md are made from it: `python -m tests.support.file_matrix`.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.support.encoders import avif_encode, jpeg2k_encode, jpeg8_encode, jpegxl_encode
from tests.support.heic_files import heic
from tests.support.images import encoded
from tests.support.paths import ROOT
from tests.support.png_files import of_samples
from tests.support.tiff_files import written
from upres.core.schema import OutputFormat
from upres.worker.imaging.icc import SRGB_CURVE, Primaries, gray_profile, rgb_profile
from upres.worker.samples import Samples

PAGE = ROOT / "docs" / "files.md"
BEGIN, END = "<!-- made by tests/support/file_matrix.py -->", "<!-- end -->"
WIDTH, HEIGHT, SEVERAL = 32, 24, 2
EXIF, XMP, IPTC, DPI, TEXTS = "EXIF", "XMP", "IPTC", "resolution", "texts"
P3 = rgb_profile(Primaries((0.3127, 0.3290), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), SRGB_CURVE)
PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:rights>Ada</dc:rights>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC_TITLE = b"\x1c\x02\x69\x00\x05Title"


@dataclass(frozen=True)
class Given:
    """An input: how it is made, and what a result should get of it."""

    kind: str
    bits: str
    """Bits of a sample in the file."""
    colours: str
    """What its pixels are, for people."""
    data: Callable[[], bytes]
    alpha: bool = False
    profile: bool = False
    """Whether it has an RGB profile, which results should keep."""
    gray: bool = False
    metadata: frozenset[str] = frozenset()
    auto: OutputFormat = "png"
    """Format of the result when the request says `auto`."""
    several: str = ""
    """Whether it has several "frames" or "pages": SEVERAL of them."""

    def __str__(self) -> str:
        return f"{self.kind}, {self.bits} bits, {self.colours}"

    @property
    def depth(self) -> int:
        """Bits of a sample when it is read: those with more than 8 get 16."""
        return 8 if self.bits == "8" else 16


@dataclass(frozen=True)
class Written:
    """A format of results: what its files have."""

    format: OutputFormat
    deepest: int
    """Most bits of a sample."""
    alpha: bool
    profile: bool
    metadata: frozenset[str]
    several: str = ""
    """Whether its files can have several "frames" or "pages"."""


@dataclass(frozen=True)
class Expected:
    """What a result has."""

    depth: int
    alpha: bool
    profile: bool
    metadata: frozenset[str]
    count: int
    """Number of frames or pages."""


def expected(given: Given, written: Written) -> Expected:
    """Return what the result of an input in a format should have: what both have."""
    return Expected(
        min(given.depth, written.deepest),
        given.alpha and written.alpha,
        given.profile and written.profile,
        given.metadata & written.metadata,
        SEVERAL if given.several and given.several == written.several else 1,
    )


def colours() -> npt.NDArray[np.float64]:
    """The picture, (height, width, 3) from 0 to 1 in sRGB: gradients that all formats can store."""
    across, down = np.meshgrid(np.linspace(0.1, 0.9, WIDTH), np.linspace(0.2, 0.8, HEIGHT))
    return np.dstack([across, down, 1 - across * 0.7])


def alpha() -> npt.NDArray[np.float64]:
    """(height, width, 1): opaque, but for a quarter at the right."""
    return np.repeat((np.arange(WIDTH) < WIDTH * 3 // 4).astype(float)[None], HEIGHT, axis=0)[..., None]


def samples(depth: int = 8, channels: int = 3) -> Samples:
    """The picture with samples of 8 bits, or of up to 16: gray or RGB (1 or 3 channels), with alpha (2 or 4)."""
    values = colours() if channels > 2 else colours().mean(axis=2, keepdims=True)
    values = np.dstack([values, alpha()]) if channels in (2, 4) else values
    made: Samples = np.rint(values * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)
    return made


def linear(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Samples of 16 bits in linear light: imagecodecs writes into JPEG XL files with 16 bits that they have it."""
    encoded_values = values / 65535
    light = np.where(encoded_values <= 0.04045, encoded_values / 12.92, ((encoded_values + 0.055) / 1.055) ** 2.4)
    made: npt.NDArray[np.uint16] = np.rint(light * 65535).astype(np.uint16)
    return made


def image(mode: str = "RGB", icc: bytes | None = None) -> Image.Image:
    """The picture as an image of 8 bits, in the colours of a profile."""
    made = Image.fromarray(samples(8, {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]).squeeze())
    if icc:
        srgb = ImageCms.createProfile("sRGB")
        rgb = ImageCms.profileToProfile(made.convert("RGB"), srgb, io.BytesIO(icc))
        assert rgb
        made = Image.merge("RGBA", [*rgb.split(), made.getchannel("A")]) if mode == "RGBA" else rgb
    return made


def exif() -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Make] = "Camera"
    made.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    return made


def with_texts() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "A cat")
    texts.add_itxt("XML:com.adobe.xmp", PACKET.decode())
    return encoded(image("RGBA", P3), "PNG", icc_profile=P3, exif=exif(), dpi=(300, 300), pnginfo=texts)


def full_jpeg() -> bytes:
    resource = b"8BIM\x04\x04\0\0" + len(IPTC_TITLE).to_bytes(4, "big") + IPTC_TITLE
    segment = b"Photoshop 3.0\0" + resource
    iptc = b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment
    more = {"exif": exif(), "xmp": PACKET, "dpi": (300, 300), "extra": iptc}
    return encoded(image("RGB", P3), "JPEG", quality=98, subsampling=0, icc_profile=P3, **more)


def full_tiff() -> bytes:
    tags: list[Any] = [(700, "B", len(PACKET), PACKET, True), (33723, "B", len(IPTC_TITLE), IPTC_TITLE, True)]
    tags.append((271, "s", 0, "Camera", True))
    made = np.asarray(image("RGBA", P3))
    return plain_tiff(made, extrasamples=["unassalpha"], iccprofile=P3, extratags=tags, resolution=(300, 300, 2))


def plain_tiff(values: npt.NDArray[Any], **options: Any) -> bytes:
    return written(
        values, **{"photometric": "rgb", "metadata": None, "software": False, "resolution": (72, 72, 2)} | options
    )


def by_pillow(format: str, mode: str = "RGBA", **options: Any) -> bytes:
    """A file with Display P3, EXIF and XMP."""
    options = options or {"quality": 98}
    return encoded(image(mode, P3), format, icc_profile=P3, exif=exif(), xmp=PACKET, **options)


def heic_with_metadata() -> bytes:
    return heic(np.asarray(image("RGBA", P3)), icc_profile=P3, exif=exif().tobytes(), xmp=PACKET)


def gray_profile_png() -> bytes:
    return encoded(image("L"), "PNG", icc_profile=gray_profile(SRGB_CURVE))


def box(name: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + name + content


def jxl_with_metadata() -> bytes:
    """JPEG XL in its container, with boxes for EXIF and XMP."""
    head = bytes.fromhex("0000000c4a584c200d0a870a") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    kept = box(b"Exif", bytes(4) + exif().tobytes().removeprefix(b"Exif\0\0")) + box(b"xml ", PACKET)
    return head + kept + box(b"jxlc", jpegxl_encode(samples(8, 4), lossless=True, usecontainer=False))


def jp2_with_metadata() -> bytes:
    """JPEG 2000 as JP2, with XMP in a box of its own type."""
    made = jpeg2k_encode(samples(8, 4), reversible=True, codecformat="jp2")
    return made + box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + PACKET)


def moving(format: str, **options: Any) -> bytes:
    """SEVERAL frames or pages, of which the first is the picture."""
    others = [image().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return encoded(image(), format, save_all=True, append_images=others, **options)


def cmyk() -> bytes:
    return encoded(image().convert("CMYK"), "JPEG", quality=98)


SEEN = frozenset({EXIF, XMP})
GIVEN = (
    Given("PNG", "8", "RGB", lambda: encoded(image(), "PNG")),
    Given("PNG", "8", "RGBA", with_texts, alpha=True, profile=True, metadata=SEEN | {DPI, TEXTS}),
    Given("PNG", "8", "gray with profile", gray_profile_png, gray=True),
    Given("PNG", "16", "RGBA", lambda: of_samples(samples(16, 4)), alpha=True),
    Given("PNG", "16", "gray", lambda: of_samples(samples(16, 1)), gray=True),
    Given("JPEG", "8", "RGB", full_jpeg, profile=True, metadata=SEEN | {IPTC, DPI}, auto="jpeg"),
    Given("JPEG", "8", "gray", lambda: encoded(image("L"), "JPEG", quality=98), gray=True, auto="jpeg"),
    Given("JPEG", "8", "CMYK", cmyk, auto="jpeg"),
    Given("JPEG", "12", "RGB", lambda: jpeg8_encode(samples(12), level=98, bitspersample=12)),
    Given("WebP", "8", "RGBA", partial(by_pillow, "WEBP"), alpha=True, profile=True, metadata=SEEN, auto="webp"),
    Given("WebP", "8", "lossless", partial(by_pillow, "WEBP", lossless=True), True, True, False, SEEN, "webp"),
    Given("AVIF", "8", "RGBA", partial(by_pillow, "AVIF"), alpha=True, profile=True, metadata=SEEN, auto="webp"),
    Given("AVIF", "10", "RGB", lambda: avif_encode(samples(10), level=98, bitspersample=10), auto="webp"),
    Given("HEIC", "8", "RGBA", heic_with_metadata, alpha=True, profile=True, metadata=SEEN, auto="webp"),
    Given("HEIC", "10", "RGB", lambda: heic(samples(16)), auto="webp"),
    Given("JPEG XL", "8", "RGBA", jxl_with_metadata, alpha=True, metadata=SEEN),
    Given("JPEG XL", "16", "gray", lambda: jpegxl_encode(linear(samples(16, 1)), lossless=True), gray=True),
    Given("JPEG 2000", "8", "RGBA", jp2_with_metadata, alpha=True, metadata=frozenset({XMP})),
    Given("JPEG 2000", "16", "gray", lambda: jpeg2k_encode(samples(16, 1), reversible=True), gray=True),
    Given("TIFF", "8", "RGBA", full_tiff, alpha=True, profile=True, metadata=SEEN | {IPTC, DPI}),
    Given("TIFF", "8", "CMYK", lambda: encoded(image().convert("CMYK"), "TIFF"), metadata=frozenset({DPI})),
    Given("TIFF", "16", "RGBA", partial(plain_tiff, samples(16, 4), extrasamples=["unassalpha"]), alpha=True),
    Given("TIFF", "32 (float)", "RGB", partial(plain_tiff, colours().astype(np.float32))),
    Given("BMP", "8", "RGB", lambda: encoded(image(), "BMP"), metadata=frozenset({DPI})),
    Given("GIF", "8", "palette", lambda: encoded(image("RGBA"), "GIF"), alpha=True),
    Given("PNG", "8", "moving", partial(moving, "PNG"), several="frames"),
    Given("WebP", "8", "moving", partial(moving, "WEBP", lossless=True), several="frames", auto="webp"),
    Given("GIF", "8", "moving", partial(moving, "GIF"), several="frames", auto="gif"),
    Given("TIFF", "8", "pages", partial(moving, "TIFF"), metadata=frozenset({DPI}), several="pages", auto="tiff"),
)
WRITTEN = (
    Written("png", 16, alpha=True, profile=True, metadata=SEEN | {DPI, TEXTS}, several="frames"),
    Written("jpeg", 8, alpha=False, profile=True, metadata=SEEN | {IPTC, DPI}),
    Written("webp", 8, alpha=True, profile=True, metadata=SEEN, several="frames"),
    Written("avif", 8, alpha=True, profile=True, metadata=SEEN),
    Written("jxl", 16, alpha=True, profile=False, metadata=SEEN),
    Written("tiff", 16, alpha=True, profile=True, metadata=SEEN | {IPTC, DPI}, several="pages"),
    Written("gif", 8, alpha=True, profile=False, metadata=frozenset(), several="frames"),
)


def tables() -> str:
    """Return the tables in Markdown: what is read of each kind of input, and what each format of a result has."""
    read = []
    for kind in dict.fromkeys(given.kind for given in GIVEN):
        rows = [given for given in GIVEN if given.kind == kind]
        pixels = "; ".join(
            f"{bits} bits: {_listed(row.colours for row in rows if row.bits == bits and not row.several)}"
            for bits in _bits(rows)
        )
        metadata = frozenset[str]().union(*(row.metadata for row in rows))
        autos = _listed(dict.fromkeys(f"`{row.auto}`" for row in rows))
        several = next((f"all {row.several}" for row in rows if row.several), "first only")
        read.append((kind, pixels, _yes(rows, "alpha"), _yes(rows, "profile"), _metadata(metadata), several, autos))
    made = []
    for one in WRITTEN:
        bits, several = "8 or 16" if one.deepest == 16 else "8", one.several or "no"
        alpha, profile = ("yes" if one.alpha else "on white"), ("yes" if one.profile else "converted to sRGB")
        made.append((f"`{one.format}`", bits, alpha, profile, _metadata(one.metadata), several))
    head = ("transparency", "colour profile", "metadata", "several")
    return (
        _table(("input", "pixels", *head, "`auto` makes"), read)
        + "\n"
        + _table(("result", "bits of a sample", *head), made)
    )


def _bits(rows: Iterable[Given]) -> list[str]:
    return list(dict.fromkeys(row.bits for row in rows))


def _yes(rows: Iterable[Given | Written], field: str) -> str:
    return "yes" if any(getattr(row, field) for row in rows) else "no"


def _metadata(kept: frozenset[str]) -> str:
    return _listed(name for name in (EXIF, XMP, IPTC, DPI, TEXTS) if name in kept) or "no"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(text: str) -> str:
    """Return the text of the page with the tables of today."""
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
