"""Text for the terminal: control characters are replaced, errors become sentences."""

from typing import IO

from upres.core.errors import UpresError


def printable(text: str) -> str:
    """The text with each non-printable character replaced, so that untrusted text cannot control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def shown(text: str, stream: IO[str]) -> str:
    """Untrusted text for a stream: made printable for a terminal, unchanged for a pipe or file."""
    return printable(text) if stream.isatty() else text


def sentence(error: Exception) -> str:
    """The message of an error for users, with its code for an UpresError."""
    if isinstance(error, UpresError):
        return f"{error} ({error.code})"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
