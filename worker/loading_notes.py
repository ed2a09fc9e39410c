"""Notes on this machine's disk of versions that are being loaded, so that a worker remembers what it died of.

They are for versions that are loaded beside others: then the others are served. Whoever kills workers kills them while
they load, too, and that must not leave a machine without its only model.

A note is a locked file, which is deleted at the end of the loading. When a worker dies meanwhile, the kernel opens the
lock and the file stays, with one byte for each death.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from upres.core.errors import ModelUnavailable

MAX_DEATHS = 2
"""A version at whose loading so many workers of this machine died, one after the other, is not loaded here."""
NOTE_SECONDS = 3600
"""Seconds after the last death until the version is loaded again: the machine may have more memory by then."""

_open: set[Path] = set()
"""The notes of this process."""


@contextmanager
def loading(cache: Path | None, key: str, what: str) -> Iterator[None]:
    """Note for the block that this process loads a version. Raises ModelUnavailable when others died of it.

    Without a folder that can be written, or with a full disk, nothing is noted; nor while another worker loads the
    same version.
    """
    path = cache and cache / "loading" / hashlib.sha256(key.encode()).hexdigest()[:32]
    note = _begin(path) if path else None
    if path is None or note is None:
        yield
        return
    with note:
        age = time.time() - os.fstat(note.fileno()).st_mtime
        deaths = note.tell() if age < NOTE_SECONDS else 0
        if deaths >= MAX_DEATHS:
            raise ModelUnavailable(
                f"Model {what} is not loaded here: {deaths} workers of this machine died while they loaded it. "
                f"Give them more memory, or delete {path.parent.name}/ in UPRES_CACHE_DIR to try again."
            )
        with suppress(OSError):
            if not deaths:
                note.truncate(0)
            note.write(b"x")
        _open.add(path)
        try:
            yield
        finally:
            _open.discard(path)
            with suppress(OSError):
                path.unlink()


def forget() -> None:
    """Delete the notes of this process, which is about to end for another reason."""
    for path in list(_open):
        with suppress(OSError):
            path.unlink()


def _begin(path: Path) -> FileIO | None:
    """Open and lock a note; None when it cannot be written, or another process has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        note = path.open("ab", buffering=0)  # closing a buffered one would try again to write to a full disk
    except OSError:
        return None
    try:
        fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        note.close()
        return None
    return note
