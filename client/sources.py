"""Finds the images named on the command line: files, folders, patterns, URLs, and lists of them; one at a time."""

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import unquote, urlsplit

from upres.client import input_files
from upres.core import file_names
from upres.core.errors import UpresError

LIST = "-"


class Source(NamedTuple):
    """One image to enlarge."""

    image: str
    """Its path or URL."""
    below: Path = Path()
    """Its folder relative to the folder that was named; empty when the image itself was named."""
    trouble: OSError | UpresError | None = None
    """The error that is known before the source is read; None without one."""

    @property
    def is_address(self) -> bool:
        """Whether it is a URL, which is downloaded by the backend and not read here."""
        return "://" in self.image

    @property
    def file_name(self) -> str:
        """The last component of its path, or of its URL, where it is made safe on every system."""
        if self.is_address:
            return file_names.plain(unquote(urlsplit(self.image).path)) or "image"
        return Path(self.image).name or "image"

    @property
    def name(self) -> str:
        """The name shown to users: the relative folder and the file name."""
        return str(self.below / self.file_name)

    def check(self) -> None:
        """Check what is known without reading it. Raises its `trouble`, OSError, or NotAnImage for an empty file."""
        if self.trouble:
            raise self.trouble
        if not self.is_address:
            input_files.check(self.image)

    @property
    def identity(self) -> tuple[str, int, int]:
        """Real path or URL, size in bytes, modification time in ns: they change with the file. Raises OSError."""
        if self.is_address:
            return self.image, 0, 0
        stat = os.stat(self.image)
        return os.path.realpath(self.image), stat.st_size, stat.st_mtime_ns


def expand(names: Sequence[str], lines: IO[str], without: str | None = None) -> Iterator[Source]:
    """Yield the images given by `names`. The name `-` stands for the names in `lines`.

    The folder `without` (a real path, the output folder) is skipped inside of named folders. An unreadable folder
    yields a source with `trouble`, and so does an image in a named folder that cannot be enlarged. Files keep their
    folders below the one that all named files have in common; names in `lines` keep theirs below the current folder,
    because the list may have no end.
    """
    common = _common_folder(name for name in names if not is_many(name) and "://" not in name)
    for name in names:
        if name == LIST:
            for line in lines:
                if line.strip() not in ("", LIST):
                    yield from _expand_one(line.rstrip("\r\n"), os.getcwd(), without)
        else:
            yield from _expand_one(name, common, without)


def is_many(name: str) -> bool:
    """Whether a name may stand for several images: a list, a folder or a pattern."""
    return name == LIST or os.path.isdir(name) or (glob.has_magic(name) and not os.path.exists(name))


def _expand_one(name: str, common: str, without: str | None) -> Iterator[Source]:
    if "://" in name:
        yield Source(name)
    elif os.path.isdir(name):
        yield from _Walk(name, without).folder(name, Path())
    elif is_many(name):
        yield from _matching(name, without)
    else:
        yield Source(name, _below(name, common))


def _common_folder(names: Iterable[str]) -> str:
    """The folder that contains all files."""
    folders = {os.path.dirname(os.path.abspath(name)) for name in names}
    try:
        return os.path.commonpath(folders) if folders else os.getcwd()
    except ValueError:  # on several drives of Windows
        return os.getcwd()


def _below(name: str, common: str) -> Path:
    """The folder of a file, relative to `common`; for a file elsewhere, to the root."""
    folder = Path(os.path.abspath(name)).parent
    return folder.relative_to(common if folder.is_relative_to(common) else folder.anchor)


class _Walk:
    """Goes through a folder and those in it, each once, however many links lead to it; skips the folder `without`."""

    def __init__(self, root: str, without: str | None) -> None:
        self._seen = {os.path.realpath(root), without}

    def enter(self, folder: str) -> bool:
        """Whether a folder is visited for the first time, under whatever name."""
        real = os.path.realpath(folder)
        new = real not in self._seen
        self._seen.add(real)
        return new

    def folder(self, folder: str, below: Path) -> Iterator[Source]:
        """Yield images in a folder, then those in its subfolders, linked ones last, by name; skips hidden files."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            yield Source(folder, below.parent, error)
            return
        paths = [os.path.join(folder, name) for name in found]
        folders = dict.fromkeys(path for path in paths if os.path.isdir(path))
        for path in paths:
            if path not in folders and input_files.is_image(path):  # pipes and broken links too: `check` names them
                yield Source(path, below, input_files.unsupported(path))
        for path in sorted(folders, key=os.path.islink):
            if self.enter(path):
                yield from self.folder(path, below / os.path.basename(path))


def _matching(pattern: str, without: str | None) -> Iterator[Source]:
    """Yield files that match a pattern; `below` is relative to the folder before the first wildcard."""
    path = Path(pattern, "*") if Path(pattern).name == "**" else Path(pattern)
    fixed = Path(*_until_magic(path.parts[:-1]))
    inside = f"{without}{os.sep}" if without and without != os.path.realpath(fixed) else None
    fits = False
    for found in _matches(fixed, path.parts[len(fixed.parts) :], set()):
        fits = True
        if not (inside and os.path.realpath(found).startswith(inside)):
            yield Source(str(found), found.parent.relative_to(fixed))
    if not fits:
        yield Source(pattern)  # no such file: opening it will fail, and the error names the pattern


def _matches(folder: Path, parts: tuple[str, ...], seen: set[tuple[str, int]]) -> Iterator[Path]:
    """Yield files below a folder that match parts of a pattern; `**` stands for any number of folders.

    A folder is searched once for the same parts, however many links lead to it; the module glob follows links that
    lead upwards again and again.
    """
    key = os.path.realpath(folder), len(parts)
    if key in seen:
        return
    seen.add(key)
    first, rest = parts[0], parts[1:]
    if first == "**":
        yield from _matches(folder, rest, seen)
        for name in sorted(_names(folder), key=lambda name: (os.path.islink(folder / name), name)):
            if (folder / name).is_dir():
                yield from _matches(folder / name, parts, seen)
        return
    for name in fnmatch.filter(_names(folder, first), first) if glob.has_magic(first) else [first]:
        if not rest and os.path.lexists(folder / name) and not (folder / name).is_dir():
            yield folder / name
        elif rest and (folder / name).is_dir():
            yield from _matches(folder / name, rest, seen)


def _names(folder: Path, pattern: str = "") -> list[str]:
    """The sorted names in a folder, none if it cannot be read; hidden ones only for a pattern with a dot in front."""
    with suppress(OSError):
        return sorted(name for name in os.listdir(folder) if pattern.startswith(".") or not name.startswith("."))
    return []


def _until_magic(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part
