"""What the libraries that write images raise becomes an error with a code."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from upres.core.errors import NotEncoded
from upres.core.schema import OutputFormat


@contextmanager
def refused_by(format: OutputFormat) -> Iterator[None]:
    """Turn what a library raises in the block when it refuses an image into NotEncoded. A full disk is no refusal."""
    try:
        yield
    except (RuntimeError, ValueError, OverflowError, struct.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise NotEncoded(f"The result cannot be written as {format} ({error}); ask for output_format png.") from error
