"""Text for the terminal: control characters are replaced, errors become sentences."""

import codecs
import io
import os
import sys
from typing import IO

from upres.core.errors import UpresError
from upres.core.foreign_text import printable


def open_closed_streams() -> None:
    """Open stdin, stdout and stderr on the null device where the caller has closed them (`>&-` in a shell).

    Otherwise Python has None in their place, and the next file or socket gets their descriptor.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def write_line(text: str) -> None:
    """Write a line to stdout at once. Raises OSError with a sentence for users; later lines are discarded then."""
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else what is buffered fails again at the end
        raise OSError(error.errno, f"The results cannot be listed on stdout: {error.strerror}") from error


def accept_any_file_name() -> None:
    """Let stdin and stdout carry every file name: names are bytes, and stdout may have an encoding that lacks some.

    Bytes that are not valid text are passed on as they are. A character that stdout's encoding lacks becomes `?`.
    """
    codecs.register_error("upres", _encode)
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "upres")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _encode(error: UnicodeError) -> tuple[bytes, int]:
    """The error handler of stdout; see codecs.register_error."""
    assert isinstance(error, UnicodeEncodeError)
    escaped = range(0xDC80, 0xDD00)  # the code points of surrogateescape (PEP 383)
    failed = error.object[error.start : error.end]
    return b"".join(bytes([ord(c) & 0xFF]) if ord(c) in escaped else b"?" for c in failed), error.end


def shown(text: str, stream: IO[str]) -> str:
    """Untrusted text for a stream: made printable for a terminal, unchanged for a pipe or file."""
    return printable(text, None, lines=True) if stream.isatty() else text


def sentence(error: Exception) -> str:
    """The message of an error for users, with its code for an UpresError."""
    if isinstance(error, UpresError):
        return f"{error} ({error.code})"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
