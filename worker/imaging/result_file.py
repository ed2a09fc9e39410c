"""What the file of a result is, decided from the options of its job and the picture."""

from dataclasses import dataclass
from typing import Self

from upres.core import formats
from upres.core.options import ResultOptions
from upres.core.schema import Depth, OutputFormat
from upres.core.sizes import Size
from upres.worker.imaging.picture import Picture


@dataclass(frozen=True)
class ResultFile:
    """Format, depth and size of the two images of a result."""

    format: OutputFormat
    depth: Depth
    """Bits of a sample."""
    size: Size
    """(width, height) in pixels."""

    @classmethod
    def of(cls, wanted: ResultOptions, picture: Picture, size: Size) -> Self:
        """Decide it for a result of this size. Raises FormatLimit when it does not fit its format."""
        format = formats.result_format(wanted.output_format, picture.format, wanted.output_depth)
        depth = formats.result_depth(wanted.output_depth, picture.depth, format)
        formats.check_size(size, format)
        return cls(format, depth, size)
