"""What the file of a result is, decided from the options of its job and the picture."""

from dataclasses import dataclass
from typing import Self

from upres.core import formats
from upres.core.options import ResultOptions
from upres.core.schema import Depth, OutputFormat
from upres.worker.imaging.picture import Picture


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
