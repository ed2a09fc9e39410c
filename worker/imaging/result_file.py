"""What the file of a result is, decided from the options of its job and the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from upres.core import formats
from upres.core.options import ResultOptions
from upres.core.schema import Depth, OutputFormat
from upres.core.sizes import Size, SizePlan
from upres.worker.imaging import colour
from upres.worker.imaging.picture import Picture, Pictures
from upres.worker.imaging.raster import MAX_NOTICES

WITHOUT_PROFILE = ("jxl", "gif")
"""Formats whose files cannot have an ICC profile here."""
CONVERTED = "The colours were converted to sRGB, because a {format} result has no colour profile here."
LEFT_OUT = "The colour profile of the image cannot be used; it is left out."


@dataclass(frozen=True)
class ResultFile:
    """Format, depth and size of the two images of a result, and how they are encoded."""

    format: OutputFormat
    depth: Depth
    """Bits of a sample."""
    size: Size
    """(width, height) in pixels."""
    quality: int | None = None
    """1 to 100; None: what the format has by default, or it has none."""
    lossless: bool = False
    """Whether it has to be without loss, in a format that can also be lossy."""

    @classmethod
    def of(cls, wanted: ResultOptions, picture: Picture, size: Size) -> Self:
        """Decide it for a result of this size. Raises FormatLimit when it does not fit its format."""
        format = formats.result_format(wanted.output_format, picture.format, wanted.output_depth, wanted.lossless)
        depth = formats.result_depth(wanted.output_depth, picture.depth, format)
        formats.check_size(size, format)
        if format not in formats.WITH_QUALITY:
            return cls(format, depth, size)
        stays = picture.lossless and format == "webp" and wanted.quality is None
        return cls(format, depth, size, wanted.quality, stays if wanted.lossless is None else wanted.lossless)

    def fitted(self, picture: Picture) -> Picture:
        """Return the picture as this file can have it: its depth, and sRGB where the format has no profiles."""
        if picture.icc and self.format in WITHOUT_PROFILE:
            picture = _in_srgb(picture, picture.icc, self.format)
        return picture.at_depth(self.depth)


def fitted(pictures: Pictures, wanted: ResultOptions, plans: Sequence[SizePlan]) -> tuple[Pictures, list[ResultFile]]:
    """Return pictures as their result can have them, and what it is for each of them; each has a plan of its size.

    A notice says what the result cannot have. Raises FormatLimit when a picture does not fit its format.
    """
    outputs = [ResultFile.of(wanted, frame, plan.size) for frame, plan in zip(pictures.frames, plans, strict=True)]
    frames = (output.fitted(frame) for frame, output in zip(pictures.frames, outputs, strict=True))
    fitting = replace(pictures, frames=tuple(frames))
    if pictures.left_out:
        fitting = fitting.noticed(formats.cannot_hold(pictures.left_out, outputs[0].format))
    return fitting, outputs


def _in_srgb(picture: Picture, icc: bytes, format: OutputFormat) -> Picture:
    pixels = colour.rgb_in_srgb(picture.pixels, icc)
    notice = CONVERTED.format(format=format) if pixels is not None else LEFT_OUT
    notices = (*picture.notices, notice)[-MAX_NOTICES:]
    return replace(picture, pixels=picture.pixels if pixels is None else pixels, icc=None, notices=notices)
