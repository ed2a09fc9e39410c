"""Writes a file so that it gets its name only when it is complete and on the disk.

The data is written to a hidden file in the same folder (`.upres-….part`). It is forced to the disk (fsync) before the
file gets its name, so that a power failure never leaves an empty or short file under that name. The writer holds a lock
on the hidden file; one without a lock was left by a killed process, and is deleted by the next writer in that folder.
"""

import errno
import os
import shutil
import stat
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from upres.client.file_lock import delete_if_unused, lock

PREFIX, SUFFIX = ".upres-", ".part"
SPOOL_BYTES = 32 << 20
"""Bytes for a pipe or device that are kept in memory; more are kept in a temporary file."""
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL}
"""Error numbers of link() on file systems without hard links, such as FAT."""
NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EBADF}
"""Error numbers of fsync() on file systems that do not have it, or not for folders."""

OPEN_FILES = {("dev", "stdout"), ("dev", "stderr"), ("dev", "fd")}
"""The first two parts of paths that name files that are open in this process."""

MayReplace = Callable[[os.stat_result], bool]
"""Called with the file that has the name already; returns whether it may be replaced."""

_unfinished: set[Path] = set()
_cleaned: set[Path] = set()
_cleaning = threading.Lock()


def always(existing: os.stat_result) -> bool:
    """Replace any existing file."""
    return True


@contextmanager
def atomic_write(path: Path, may_replace: MayReplace = always) -> Iterator[IO[bytes]]:
    """Write a file. After an error there is no new file, and an old one remains.

    A symbolic link remains, and the file that it names is written. A pipe or device is written into.
    Raises FileExistsError when a file has that name and `may_replace` is false for it; OSError.
    """
    if _is_written_into(path):
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            yield spool
            spool.seek(0)
            with path.open("wb") as target:
                shutil.copyfileobj(spool, target)
        return
    path = Path(os.path.realpath(path))
    with _part_in(path.parent) as (part, file):
        yield file
        file.flush()
        _sync(file.fileno())
        _give_name(part, path, may_replace)
    _sync_folder(path.parent)


def delete_unfinished() -> None:
    """Delete the hidden files of all threads. To be called before os._exit, which runs no `finally` in them."""
    for part in list(_unfinished):
        with suppress(OSError):
            part.unlink()


def delete_abandoned(folder: Path) -> None:
    """Delete the hidden files in a folder that killed processes left there; once per folder and process."""
    with _cleaning:
        if folder in _cleaned:
            return
        _cleaned.add(folder)
    with suppress(OSError):
        for part in folder.glob(f"{PREFIX}*{SUFFIX}"):
            delete_if_unused(part)


def _is_written_into(path: Path) -> bool:
    """Whether a path names a pipe, a device or an open file. Raises IsADirectoryError."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # /dev/stdout and the like are files that are open: their names must not get other files.
    parts = path.absolute().parts
    return not stat.S_ISREG(mode) or parts[1:2] == ("proc",) or parts[1:3] in OPEN_FILES


@contextmanager
def _part_in(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Create a locked hidden file in a folder; deleted at the end if it is still there."""
    delete_abandoned(folder)
    part, file = _locked_file(folder)
    try:
        with file:
            yield part, file
    finally:
        part.unlink(missing_ok=True)
        _unfinished.discard(part)


def _locked_file(folder: Path) -> tuple[Path, IO[bytes]]:
    while True:
        part = folder / f"{PREFIX}{uuid.uuid4().hex[:12]}{SUFFIX}"
        _unfinished.add(part)
        file = part.open("xb")
        lock(file)
        if part.exists():
            return part, file
        file.close()  # another process deleted the file before it was locked


def _give_name(part: Path, path: Path, may_replace: MayReplace) -> None:
    """Give a complete file its name. Raises FileExistsError, decided at the moment of writing, not before."""
    try:
        _link(part, path)
    except FileExistsError:
        existing = path.stat()
        if not may_replace(existing):
            raise
        with suppress(OSError):
            part.chmod(stat.S_IMODE(existing.st_mode))
        part.replace(path)


def _link(part: Path, path: Path) -> None:
    """Give a file a name that must be free. Raises FileExistsError."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        path.touch(exist_ok=False)
        try:
            part.replace(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _sync(descriptor: int) -> None:
    """Force a file's data to the disk. Raises OSError when the disk is full or fails."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk. Windows cannot open folders, and needs no such step."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
