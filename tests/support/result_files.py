"""What the files of results are, for tests of encoders without a job."""

from upres.core.schema import OutputFormat
from upres.worker.imaging.picture import Picture
from upres.worker.imaging.result_file import ResultFile


def result_file(picture: Picture, factor: int, format: OutputFormat) -> ResultFile:
    """Return what the enlargement of a picture by a factor is, in this format and as deep as the picture."""
    return ResultFile(format, picture.depth, (picture.size[0] * factor, picture.size[1] * factor))
