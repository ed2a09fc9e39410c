"""What the file of a result is, decided from the options of its job and the pictures."""

from dataclasses import dataclass, replace
from typing import Self

from upres.core import formats
from upres.core.options import ResultOptions
from upres.core.schema import Depth, OutputFormat
from upres.worker.imaging.picture import Picture, Pictures


@dataclass(frozen=True)
class ResultFile:
    """Format, depth and size of the two images of a result."""

    format: OutputFormat
    depth: Depth
    """Bits of a sample."""
    size: tuple[int, int]
    """(width, height) in pixels."""

    @classmethod
    def of(cls, wanted: ResultOptions, picture: Picture) -> Self:
        """Decide it. Raises FormatLimit when the result does not fit its format."""
        format = formats.result_format(wanted.output_format, picture.format, wanted.output_depth)
        depth = formats.result_depth(wanted.output_depth, picture.depth, format)
        size = (picture.size[0] * wanted.upscale_factor, picture.size[1] * wanted.upscale_factor)
        formats.check_size(size, format)
        return cls(format, depth, size)


def fitted(pictures: Pictures, wanted: ResultOptions) -> tuple[Pictures, list[ResultFile]]:
    """Return pictures with the depth of their result, and what it is for each of them.

    A notice says what the result cannot have. Raises FormatLimit when a picture does not fit its format.
    """
    outputs = [ResultFile.of(wanted, frame) for frame in pictures.frames]
    frames = (frame.at_depth(output.depth) for frame, output in zip(pictures.frames, outputs, strict=True))
    fitting = replace(pictures, frames=tuple(frames))
    if pictures.left_out:
        fitting = fitting.noticed(formats.cannot_hold(pictures.left_out, outputs[0].format))
    return fitting, outputs
