"""Text for people: what came from outside does not speak to the terminal, what went wrong is a sentence."""

from typing import IO

from upres.core.errors import UpresError


def printable(text: str) -> str:
    """Text from outside, which does not speak to the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def shown(text: str, stream: IO[str]) -> str:
    """Text from outside as a terminal may have it; a pipe gets it as it is."""
    return printable(text) if stream.isatty() else text


def sentence(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, UpresError):
        return f"{error} ({error.code})"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
