"""Finds the images named on the command line: files, folders, patterns, URLs, and lists of them; one at a time."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple
from urllib.parse import unquote, urlsplit

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"}
"""File suffixes that are searched for in folders. A file that is named directly is used with any suffix."""
LIST = "-"


class Source(NamedTuple):
    """One image to enlarge."""

    image: str
    """Its path or URL."""
    below: Path = Path()
    """Its folder relative to the folder that was named; empty when the image itself was named."""
    trouble: OSError | None = None
    """The error that makes the source unreadable; None without one."""

    @property
    def is_address(self) -> bool:
        """Whether it is a URL, which is downloaded by the backend and not read here."""
        return "://" in self.image

    @property
    def file_name(self) -> str:
        """The last component of its path or URL."""
        path = unquote(urlsplit(self.image).path) if self.is_address else self.image
        return PurePosixPath(path).name or "image"

    @property
    def name(self) -> str:
        """The name shown to users: the relative folder and the file name."""
        return str(self.below / self.file_name)

    @property
    def identity(self) -> tuple[str, int, int]:
        """Real path or URL, size in bytes, modification time in ns: they change with the file. Raises OSError."""
        if self.is_address:
            return self.image, 0, 0
        stat = os.stat(self.image)
        return os.path.realpath(self.image), stat.st_size, stat.st_mtime_ns


def expand(names: Iterable[str], lines: IO[str], without: str | None = None) -> Iterator[Source]:
    """Yield the images given by `names`. The name `-` stands for the names in `lines`.

    The folder `without` (a real path, the output folder) is skipped inside of named folders. An unreadable folder
    yields a source with `trouble`.
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
    """Whether a name may stand for several images: a list, a folder or a pattern."""
    return name == LIST or os.path.isdir(name) or (glob.has_magic(name) and not os.path.exists(name))


def _walk(folder: str, below: Path, above: tuple[str, ...], without: str | None) -> Iterator[Source]:
    """Yield images in a folder, then those in its subfolders, sorted by name; skips hidden files and link cycles."""
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
    """Yield files that match a pattern; `below` is relative to the folder before the first wildcard."""
    fixed, fits = Path(*_until_magic(Path(pattern).parts[:-1])), False
    inside = f"{without}{os.sep}" if without and without != os.path.realpath(fixed) else None
    for path in glob.iglob(pattern, recursive=True):
        if os.path.isfile(path):
            fits = True
            if not (inside and os.path.realpath(path).startswith(inside)):
                yield Source(path, Path(path).parent.relative_to(fixed))
    if not fits:
        yield Source(pattern)  # no such file: opening it will fail, and the error names the pattern


def _until_magic(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part
