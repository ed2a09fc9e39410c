"""Writes TIFF with 8 or 16 bits while rows come: what is written is compressed in other threads.

kept       gray, alpha (unassociated), ICC profile; of metadata EXIF with its directories, XMP, IPTC and resolution
left out   texts of a PNG file; in a file of more than 4 GB the directories of EXIF
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from upres.worker.imaging.metadata import Metadata
from upres.worker.imaging.picture import Picture, Pictures
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers.refusals import refused_by
from upres.worker.imaging.writers.rows import as_in_file
from upres.worker.imaging.writers.tiff_file import About, Page, Tag, file_of
from upres.worker.samples import Samples

BYTE, TEXT, SHORT, UNDEFINED = 1, 2, 3, 7
"""Types of values (TIFF 6.0, section 2)."""
XMP, IPTC = 700, 33723
"""Tags for metadata of other standards."""
DIRECTORIES = {"ExifTag": ExifTags.IFD.Exif, "GPSTag": ExifTags.IFD.GPSInfo}
"""tifffile's names of the tags that point to the directories of EXIF, and their numbers."""


class TiffEncoder:
    """An Encoder (imaging/encode.py) for TIFF, with 8 or 16 bits, and a page for each picture."""

    def __init__(
        self,
        pictures: Pictures,
        outputs: Sequence[ResultFile],
        compressors: Executor,
        sink: Callable[[bytes], object],
    ) -> None:
        self._pictures = pictures.frames
        self._pages = [
            Page(output.size, picture.channels + (picture.alpha is not None), output.depth, compressors, about(picture))
            for picture, output in zip(pictures.frames, outputs, strict=True)
        ]
        self._number = 0
        self._sink = sink

    def write(self, band: Samples) -> None:
        """See Encoder."""
        if not self._pages[self._number].rows_left:
            self._number += 1
        self._pages[self._number].write(as_in_file(band, self._pictures[self._number]))

    def finish(self) -> None:
        """See Encoder."""
        for page in self._pages:
            page.finish()
        with refused_by("tiff"):
            file = file_of(self._pages)
        self._sink(file)


def about(picture: Picture) -> About:
    """Return what a page says of a picture: its profile and metadata."""
    kept = picture.metadata
    tags: list[Tag] = [(XMP, BYTE, None, kept.xmp, True)] if kept.xmp else []
    tags += [(IPTC, UNDEFINED, None, kept.iptc, True)] if kept.iptc else []
    own, directories = _of_exif(kept)
    return About(picture.icc, kept.dpi, [*tags, *own], directories)


def _of_exif(kept: Metadata) -> tuple[list[Tag], dict[str, ImageFileDirectory_v2]]:
    """Return the tags of EXIF data that belong to the page's own directory, and the other directories."""
    exif = Image.Exif()
    try:
        exif.load(kept.exif)
        return list(_tags(exif)), {name: made for name, ifd in DIRECTORIES.items() if (made := _directory(exif, ifd))}
    except Exception:  # foreign data: Pillow raises many types; the pixels do not need it
        return [], {}


def _tags(exif: Image.Exif) -> Iterator[Tag]:
    """Yield the texts and numbers of the main directory; the resolution is Metadata.dpi."""
    for tag, value in exif.items():
        if isinstance(value, str):
            yield tag, TEXT, None, value.encode() + b"\0", True
        elif isinstance(value, bytes):
            yield tag, BYTE, None, value, True
        elif isinstance(value, int) and tag not in (*DIRECTORIES.values(), ExifTags.Base.ResolutionUnit):
            yield tag, SHORT, 1, value, True


def _directory(exif: Image.Exif, ifd: ExifTags.IFD) -> ImageFileDirectory_v2 | None:
    values = exif.get_ifd(ifd)
    made = ImageFileDirectory_v2(prefix=b"II", group=ifd)
    for tag, value in values.items():
        made[tag] = value
    return made if values else None
