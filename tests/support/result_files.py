"""What the files of results are, for tests of encoders without a job."""

from upres.core import formats
from upres.core.schema import OutputFormat
from upres.worker.imaging.picture import Picture
from upres.worker.imaging.result_file import ResultFile


def result_file(picture: Picture, factor: int, format: OutputFormat, quality: int | None = None) -> ResultFile:
    """Return what the enlargement of a picture by a factor is, in this format, as deep as it can be."""
    depth = formats.result_depth("auto", picture.depth, format)
    size = (picture.size[0] * factor, picture.size[1] * factor)
    return ResultFile(format, depth, size, quality, picture.lossless and format == "webp")
