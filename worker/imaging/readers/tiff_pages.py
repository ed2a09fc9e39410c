"""Which page of a TIFF file is the image: a file may begin with a thumbnail, or be the raw data of a camera."""

from collections.abc import Iterator
from itertools import islice

from tifffile import TiffFile, TiffPage

from upres.core.errors import UnsupportedImage

REDUCED, MASK = 0b001, 0b100
"""Bits of NewSubfileType: a smaller version of another page, and a mask of one."""
DNG_VERSION = 50706
RAW_COLOURS = {32803, 34892}
"""Values of PhotometricInterpretation in raw files: one colour per pixel (CFA), and linear."""
MOST_PAGES = 32
"""Pages and SubIFDs that are looked at."""


def main_page(tiff: TiffFile) -> TiffPage:
    """Return the first page that is neither a smaller version nor a mask; if all are, the first page.

    Raises UnsupportedImage for raw files of cameras.
    """
    first = tiff.pages[0]
    assert isinstance(first, TiffPage)
    pages = [first]
    if first.subfiletype & (REDUCED | MASK) or first.subifds:
        pages += islice(_others(tiff, first), MOST_PAGES)
    if any(DNG_VERSION in page.tags or page.photometric in RAW_COLOURS for page in pages):
        raise UnsupportedImage("RAW files of cameras (such as DNG or NEF) are not supported; export a TIFF or JPEG.")
    return next((page for page in pages if not page.subfiletype & (REDUCED | MASK)), first)


def pages(tiff: TiffFile, most: int) -> Iterator[TiffPage]:
    """Yield `main_page`, then the pages after it that are neither smaller versions nor masks, `most` in all at most."""
    main = main_page(tiff)
    yield main
    seen, number, count = {main.offset}, 1, 1
    while count < most:
        try:
            page = tiff.pages[number]
        except IndexError:
            return
        number += 1
        if not isinstance(page, TiffPage) or number > MOST_PAGES * most:
            return
        if page.offset not in seen and not page.subfiletype & (REDUCED | MASK):
            count += 1
            yield page
        seen.add(page.offset)


def _others(tiff: TiffFile, first: TiffPage) -> Iterator[TiffPage]:
    """Yield the SubIFDs of the first page, then the pages after it, each with its SubIFDs."""
    page: TiffPage | None = first
    number = 0
    while page is not None and number < MOST_PAGES:
        if number:
            yield page
        for child in islice(page.pages or (), MOST_PAGES):
            if isinstance(child, TiffPage):
                yield child
        number += 1
        try:
            following = tiff.pages[number]
        except IndexError:
            return
        page = following if isinstance(following, TiffPage) else None
