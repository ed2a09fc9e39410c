"""The matrix of image files: what each kind of input has, and what each format of a result can have.

tests/system/test_file_matrix.py tries each combination on the whole system, and compares pixels. The tables in
docs/files.md are made from it: `python -m tests.support.file_matrix`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tests.support import matrix_files as files
from tests.support.encoders import avif_encode, jpeg2k_encode, jpeg8_encode, jpegxl_encode
from tests.support.heic_files import heic
from tests.support.images import encoded
from tests.support.paths import ROOT
from tests.support.png_files import of_samples
from upres.core.schema import OutputFormat

PAGE = ROOT / "docs" / "files.md"
BEGIN, END = "<!-- made by tests/support/file_matrix.py -->", "<!-- end -->"
EXIF, XMP, IPTC, DPI, TEXTS = "EXIF", "XMP", "IPTC", "resolution", "texts"


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
    """Whether it has several "frames" or "pages": matrix_files.SEVERAL of them."""

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
        files.SEVERAL if given.several and given.several == written.several else 1,
    )


SEEN = frozenset({EXIF, XMP})
GIVEN = (
    Given("PNG", "8", "RGB", lambda: encoded(files.image(), "PNG")),
    Given("PNG", "8", "RGBA", files.with_texts, alpha=True, profile=True, metadata=SEEN | {DPI, TEXTS}),
    Given("PNG", "8", "gray with profile", files.gray_profile_png, gray=True),
    Given("PNG", "16", "RGBA", lambda: of_samples(files.samples(16, 4)), alpha=True),
    Given("PNG", "16", "gray", lambda: of_samples(files.samples(16, 1)), gray=True),
    Given("JPEG", "8", "RGB", files.full_jpeg, profile=True, metadata=SEEN | {IPTC, DPI}, auto="jpeg"),
    Given("JPEG", "8", "gray", lambda: encoded(files.image("L"), "JPEG", quality=98), gray=True, auto="jpeg"),
    Given("JPEG", "8", "CMYK", files.cmyk, auto="jpeg"),
    Given("JPEG", "12", "RGB", lambda: jpeg8_encode(files.samples(12), level=98, bitspersample=12)),
    Given("WebP", "8", "RGBA", partial(files.by_pillow, "WEBP"), alpha=True, profile=True, metadata=SEEN, auto="webp"),
    Given("WebP", "8", "lossless", partial(files.by_pillow, "WEBP", lossless=True), True, True, False, SEEN, "webp"),
    Given("AVIF", "8", "RGBA", partial(files.by_pillow, "AVIF"), alpha=True, profile=True, metadata=SEEN, auto="webp"),
    Given("AVIF", "10", "RGB", lambda: avif_encode(files.samples(10), level=98, bitspersample=10), auto="webp"),
    Given("HEIC", "8", "RGBA", files.heic_with_metadata, alpha=True, profile=True, metadata=SEEN, auto="webp"),
    Given("HEIC", "10", "RGB", lambda: heic(files.samples(16)), auto="webp"),
    Given("JPEG XL", "8", "RGBA", files.jxl_with_metadata, alpha=True, metadata=SEEN),
    Given("JPEG XL", "16", "gray", lambda: jpegxl_encode(files.linear(files.samples(16, 1)), lossless=True), gray=True),
    Given("JPEG 2000", "8", "RGB", files.jp2_with_metadata, profile=True, metadata=frozenset({XMP})),
    Given("JPEG 2000", "8", "RGBA", lambda: jpeg2k_encode(files.samples(8, 4), reversible=True), alpha=True),
    Given("JPEG 2000", "16", "gray", lambda: jpeg2k_encode(files.samples(16, 1), reversible=True), gray=True),
    Given("TIFF", "8", "RGBA", files.full_tiff, alpha=True, profile=True, metadata=SEEN | {IPTC, DPI}),
    Given("TIFF", "8", "CMYK", lambda: encoded(files.image().convert("CMYK"), "TIFF"), metadata=frozenset({DPI})),
    Given(
        "TIFF", "16", "RGBA", partial(files.plain_tiff, files.samples(16, 4), extrasamples=["unassalpha"]), alpha=True
    ),
    Given("TIFF", "32 (float)", "RGB", partial(files.plain_tiff, files.colours().astype(np.float32))),
    Given("BMP", "8", "RGB", lambda: encoded(files.image(), "BMP"), metadata=frozenset({DPI})),
    Given("GIF", "8", "palette", lambda: encoded(files.image("RGBA"), "GIF"), alpha=True),
    Given("PNG", "8", "moving", partial(files.moving, "PNG"), several="frames"),
    Given("WebP", "8", "moving", partial(files.moving, "WEBP", lossless=True), several="frames", auto="webp"),
    Given("GIF", "8", "moving", partial(files.moving, "GIF"), several="frames", auto="gif"),
    Given("TIFF", "8", "pages", partial(files.moving, "TIFF"), metadata=frozenset({DPI}), several="pages", auto="tiff"),
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
