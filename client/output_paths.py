"""The output paths of a batch: their names, who may write to them, and writing."""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import NamedTuple, cast
from urllib.parse import unquote, urlsplit

from upres.client.atomic_file import MayReplace
from upres.client.errors import NameTooLong, OutputTaken, OutputUnwritable
from upres.client.input_files import SUFFIXES, suffix
from upres.client.ledger import Identity, Ledger
from upres.client.sources import Source
from upres.core import file_names
from upres.core.formats import EXTENSIONS
from upres.core.schema import OutputFormat, Result

NAME = "{stem}_x{factor}"
FIELDS = {"stem", "suffix", "parent", "n", "factor", "size", "model"}
"""Fields of a name pattern: the photo's name without suffix, its suffix, its folder's name, its number in the run, …"""
MAX_NAME_BYTES = 255
"""Longest file name on common file systems."""
DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on the disk is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EIO: "the disk does not work",
}
"""Error numbers after which no other result can be written either."""


class FileId(NamedTuple):
    """What tells whether a path still has the same file."""

    device: int
    inode: int
    bytes: int
    mtime_ns: int


class Output(NamedTuple):
    """A finished result that is not yet saved. `save` downloads or writes it to a path; see atomic_file.MayReplace."""

    result: Result
    save: Callable[[Path, MayReplace], object]


class Reservation(NamedTuple):
    """An output path that is reserved for a source in this run."""

    path: Path
    identity: Identity
    """The identity of the source before it was read: a photo that changes while its job runs is made again later."""
    existing: FileId | None
    """The file that had the path when it was reserved, and may be replaced; None when there was none."""
    repeated: bool = False
    """Whether the same source reserved it before, in this command or in another one that runs."""


class OutputPaths:
    """The output paths of one run of the command. Safe from several threads."""

    def __init__(self, ledger: Ledger, out: Path, name: str, options: dict[str, str], force: bool) -> None:
        self._ledger, self._out, self._name, self._options, self._force = ledger, out, name, options, force
        self._most_bytes = _most_bytes(out)
        self._key = ",".join(f"{name}={options[name]}" for name in sorted(options))

    def finished(self, source: Source) -> Path | None:
        """The result of an earlier run, if it is still valid. Raises OSError when the source cannot be read."""
        return self._finished(source.identity)

    def reserve(self, source: Source, number: int) -> Reservation:
        """Reserve the likely path of a result. Raises OutputTaken, OutputUnwritable, NameTooLong, or OSError."""
        return self._reserve(source.identity, self._path(source, number, self._likely_extension(source)))

    def release(self, reservation: Reservation) -> None:
        """Give up a path whose image could not be enlarged, so that another source may have it."""
        with _disk_errors(self._out):
            self._ledger.release(reservation.path)

    def save(self, source: Source, number: int, reserved: Reservation, made: Output) -> Path:
        """Save a result under its path, which is another one than reserved if the format is another than expected.

        Raises OutputTaken, or OutputUnwritable when no other result could be saved either.
        """
        path = self._path(source, number, EXTENSIONS[made.result.format])
        if path == reserved.path:
            return self._write(reserved, made)
        self.release(reserved)
        reserved = self._reserve(reserved.identity, path)
        try:
            return self._write(reserved, made)
        except Exception:
            self.release(reserved)
            raise

    def _write(self, reserved: Reservation, made: Output) -> Path:
        """Write a result. It is recorded first, so that other commands know the source of the file once it exists."""
        path, identity = reserved.path, reserved.identity
        with _disk_errors(self._out):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._ledger.record(identity, self._key, path, None)
            try:
                made.save(path, lambda existing: self._may_replace(reserved, existing))
            except FileExistsError:
                raise OutputTaken(f"{path} was written by another program in the meantime; it is kept.") from None
            self._ledger.wrote(path)
            self._ledger.record(identity, self._key, path, path.stat().st_size)
        return path

    def _finished(self, identity: Identity) -> Path | None:
        with _disk_errors(self._out):
            return None if self._force else self._ledger.finished(identity, self._key)

    def _reserve(self, identity: Identity, path: Path) -> Reservation:
        real = identity[0]
        if os.path.realpath(path) == real:
            raise OutputTaken(f"{path} is the photo itself; choose another --name or --out.")
        with _disk_errors(self._out):
            other = self._ledger.claim(path, real)
            if other not in (None, real):
                raise OutputTaken(f"{path} is the result of {other}; {_advice(other, real)}.")
            existing = _file_id(path)  # after the claim: until then another command may have written it
            if other is None and existing and not self._force:
                try:
                    self._check_owner(path, real, existing)
                except OutputTaken:
                    self._ledger.release(path)
                    raise
            repeated = other is not None or bool(existing and self._finished(identity))
        return Reservation(path, identity, existing, repeated)

    def _check_owner(self, path: Path, real: str, existing: FileId) -> None:
        """Raise OutputTaken unless the existing file is the unchanged result of this source, or of one that is gone."""
        before = self._ledger.made_of(path)
        if before is None:
            raise OutputTaken(f"{path} exists already; --force replaces it, --name or --out makes another.")
        if before != real and ("://" in before or os.path.exists(before)):
            raise OutputTaken(f"{path} is the result of {before}; {_advice(before, real)}, or --force to replace it.")
        if existing.bytes not in (0, self._ledger.size_of(path) or existing.bytes):
            raise OutputTaken(f"{path} was changed since upres made it, and is kept; --force replaces it.")

    def _may_replace(self, reserved: Reservation, existing: os.stat_result) -> bool:
        """Whether the file that has the name now may be replaced: it had it before, or --force was given.

        A file that was written for another source just now is never replaced: on a file system that does not
        distinguish upper and lower case, two names may be one file.
        """
        if (writer := self._ledger.writer_of(existing)) is not None:
            return writer == reserved.identity[0]
        return self._force or _id(existing) == reserved.existing

    def _path(self, source: Source, number: int, extension: str) -> Path:
        """The path of a result. Raises NameTooLong."""
        file = PurePosixPath(source.file_name)
        fields = {
            "stem": file.stem,
            "suffix": file.suffix.removeprefix("."),
            "parent": _parent(source.image),
            "n": number,
            "factor": self._options["factor"],
            "size": _size(self._options),
            "model": Path(self._options["model"]).name,  # with --local it may be the path of a folder
        }
        return self._out / source.below / self._fitting(f"{self._name}.{extension}", fields, file.stem)

    def _fitting(self, pattern: str, fields: dict[str, object], stem: str) -> str:
        """The name of a result, whose stem is shortened if the name is longer than the file system allows."""
        name, most = pattern.format(**fields), self._most_bytes
        if (excess := file_names.length(name) - most) <= 0:
            return name
        each = -(-excess // (pattern.count("{stem") or 1))
        name = pattern.format(**fields | {"stem": file_names.shortened(stem, file_names.length(stem) - each)})
        if file_names.length(name) > most:
            raise NameTooLong(f"The result's name would have more than {most} bytes; give a shorter --name.")
        return name

    def _likely_extension(self, source: Source) -> str:
        """The expected file extension of the result; with `auto` a guess from the input's suffix."""
        wanted = self._options["output_format"]
        likely = SUFFIXES.get(suffix(source.file_name), "png") if wanted == "auto" else wanted
        return EXTENSIONS[cast(OutputFormat, likely)]


def check_pattern(pattern: str) -> None:
    """Check a pattern of names. Raises ValueError, whose message says what is wrong."""
    fields = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
    if not fields & {"stem", "n"} or not fields <= FIELDS or set("/\\") & set(pattern):
        known = ", ".join(f"{{{name}}}" for name in sorted(FIELDS))
        raise ValueError(f"a file name with {{stem}} or {{n}} in it; known are {known}")
    pattern.format(**dict.fromkeys(FIELDS, 1))


def check_folder(folder: Path) -> None:
    """Check that files can be written to a folder, which is made if it is missing. Raises OutputUnwritable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise OutputUnwritable(f"{folder}: {error.strerror or error}.") from error


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors that concern all files of the folder into OutputUnwritable."""
    try:
        yield
    except OSError as error:
        only_a_subfolder = error.errno in (errno.EACCES, errno.EPERM) and os.access(folder, os.W_OK)
        if error.errno in DISK_ERRORS and not only_a_subfolder:
            raise OutputUnwritable(f"Nothing more can be saved in {folder}: {DISK_ERRORS[error.errno]}.") from error
        raise
    except sqlite3.Error as error:
        raise OutputUnwritable(f"The list of results in {folder} cannot be written: {error}.") from error


def _most_bytes(folder: Path) -> int:
    """The longest file name in a folder, in bytes. Some file systems (FAT) state more than they have."""
    try:
        return min(MAX_NAME_BYTES, os.pathconf(folder, "PC_NAME_MAX"))
    except (OSError, ValueError, AttributeError):  # unknown; AttributeError on Windows
        return MAX_NAME_BYTES


def _id(found: os.stat_result) -> FileId:
    return FileId(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _file_id(path: Path) -> FileId | None:
    try:
        return _id(path.stat())
    except FileNotFoundError:
        return None


def _size(options: dict[str, str]) -> str:
    """What names say of the wanted size: x4, 1920x1080, w1920."""
    return options["size"].partition(" ")[0] if "size" in options else f"x{options['factor']}"


def _parent(image: str) -> str:
    """The name of the folder of a path or URL; the host of a URL without folders."""
    if "://" not in image:
        return Path(image).absolute().parent.name
    url = urlsplit(image)
    return file_names.plain(unquote(PurePosixPath(url.path).parent.name)) or url.hostname or ""


def _advice(one: str, other: str) -> str:
    """What to put into --name so that the results of two sources get different names."""
    first, second = PurePosixPath(one), PurePosixPath(other)
    if first.parent == second.parent and first.suffix != second.suffix:
        field = "suffix"
    else:
        field = "parent" if _parent(one) != _parent(other) else "n"
    return f"put {{{field}}} into --name"
