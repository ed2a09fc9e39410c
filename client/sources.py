"""Which images are meant: files, folders, patterns, addresses, and lists of them, one after the other."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple
from urllib.parse import unquote, urlsplit

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"}
"""What is taken from a folder; a file that is named is taken whatever it is called."""
LIST = "-"


class Source(NamedTuple):
    """One image."""

    image: str
    """Its path or address."""
    below: Path = Path()
    """Where it lies within the folder that was named; empty for what was named itself."""
    trouble: OSError | None = None
    """Why it cannot be looked at."""

    @property
    def is_address(self) -> bool:
        """Whether it is fetched by the server."""
        return "://" in self.image

    @property
    def file_name(self) -> str:
        """Its own name."""
        path = unquote(urlsplit(self.image).path) if self.is_address else self.image
        return PurePosixPath(path).name or "image"

    @property
    def name(self) -> str:
        """What to call it before people: with the folders below the one that was named."""
        return str(self.below / self.file_name)

    @property
    def identity(self) -> tuple[str, int, int]:
        """What it is, by which a change shows: place, bytes, nanoseconds. Raises OSError."""
        if self.is_address:
            return self.image, 0, 0
        stat = os.stat(self.image)
        return os.path.realpath(self.image), stat.st_size, stat.st_mtime_ns


def expand(names: Iterable[str], lines: IO[str], without: str | None = None) -> Iterator[Source]:
    """The images that are meant by names, `-` being those in the lines.

    Of a folder within which the folder `without` (a real path) lies, not what lies there. A folder that cannot be read
    is a source with trouble.
    """
    for name in names:
        if name == LIST:
            yield from expand((line.rstrip("\r\n") for line in lines if line.strip() not in ("", LIST)), lines, without)
        elif "://" in name:
            yield Source(name)
        elif os.path.isdir(name):
            real = os.path.realpath(name)
            yield from _walk(name, Path(), (real,), without if without != real else None)
        elif glob.has_magic(name) and not os.path.exists(name):
            yield from _matching(name, without)
        else:
            yield Source(name)


def is_many(name: str) -> bool:
    """Whether a name may mean any number of images."""
    return name == LIST or os.path.isdir(name) or (glob.has_magic(name) and not os.path.exists(name))


def _walk(folder: str, below: Path, above: tuple[str, ...], without: str | None) -> Iterator[Source]:
    """The images in a folder, and then in those within, by name; nothing hidden, and no folder within itself."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        yield Source(folder, below.parent, error)
        return
    paths = [os.path.join(folder, name) for name in found]
    folders = [path for path in paths if os.path.isdir(path)]
    for path in paths:
        if os.path.splitext(path)[1].lower() in SUFFIXES and os.path.isfile(path):
            yield Source(path, below)
    for path in folders:
        real = os.path.realpath(path)
        if real != without and real not in above:
            yield from _walk(path, below / os.path.basename(path), (*above, real), without)


def _matching(pattern: str, without: str | None) -> Iterator[Source]:
    """The files that a pattern fits (`**`: any number of folders), below the folder that it does not leave open."""
    fixed, fits = Path(*_until_magic(Path(pattern).parts[:-1])), False
    inside = f"{without}{os.sep}" if without and without != os.path.realpath(fixed) else None
    for path in glob.iglob(pattern, recursive=True):
        if os.path.isfile(path):
            fits = True
            if not (inside and os.path.realpath(path).startswith(inside)):
                yield Source(path, Path(path).parent.relative_to(fixed))
    if not fits:
        yield Source(pattern)  # there is no such file, and that is said


def _until_magic(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part
