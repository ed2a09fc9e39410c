"""The manifest of an output folder: which results are made of what, so that none is made twice, and none overwritten.

A SQLite file: any number of images takes no memory, a crash leaves it whole, and two commands may share a folder.
"""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, Self

NAME = ".upres.db"
BUSY_SECONDS = 30
MOUNTS = Path("/proc/self/mounts")
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.rclone", "fuse.s3fs"}
"""File systems that other machines may share, as Linux names them."""
# Paths are bytes: not all of them are text. Claims are this command's, in a file that is gone with it.
_TABLES = """
CREATE TABLE IF NOT EXISTS results (
    output BLOB PRIMARY KEY, source BLOB, bytes INTEGER, mtime_ns INTEGER, options TEXT, done INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_source ON results (source, options);
CREATE TEMPORARY TABLE claims (output BLOB PRIMARY KEY, source BLOB) WITHOUT ROWID;
"""

Identity = tuple[str, int, int]
"""Place, bytes, nanoseconds: see Source.identity."""


def _journal(folder: Path) -> str:
    """SQLite's journal mode for a database in a folder: WAL, with which a commit waits for no disk.

    Where other machines may have the folder open, the older one: WAL needs memory that all its users share
    (sqlite.org/wal.html). SQLite itself keeps to the older one where a file system refuses WAL.
    """
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:  # another system than Linux
        return "WAL"
    above = [(mount[1].encode().decode("unicode_escape"), mount[2]) for mount in mounts]
    here = [(place, kind) for place, kind in above if folder.is_relative_to(place)]
    _, kind = max(here, key=lambda mount: len(mount[0]), default=("", ""))
    return "DELETE" if kind in NETWORK else "WAL"


class Ledger:
    """What is made in one folder; of None, what is made in this command. Raises OSError or sqlite3.Error."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = (folder or Path()).resolve()
        self._lock = threading.Lock()
        place = self._folder / NAME if folder else ":memory:"
        self._database = sqlite3.connect(place, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        # What a power cut loses is only made again.
        self._database.executescript(f"PRAGMA journal_mode={_journal(self._folder)}; PRAGMA synchronous=NORMAL")
        self._database.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def finished(self, identity: Identity, options: str) -> Path | None:
        """Where the result of an image lies that has not changed since; None when it has to be made."""
        source, size, mtime_ns = identity
        query = "SELECT output FROM results WHERE source = ? AND options = ? AND bytes = ? AND mtime_ns = ? AND done"
        row = self._first(query, os.fsencode(source), options, size, mtime_ns)
        path = self._folder / os.fsdecode(row[0]) if row else None
        return path if path and path.exists() else None

    def claim(self, output: Path, source: str) -> str | None:
        """Whose result an output path will be: None when it is this source's from now on."""
        place = self._place(output)
        with self._lock:
            done = self._database.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (place, os.fsencode(source)))
        if done.rowcount:
            return None
        row = self._first("SELECT source FROM claims WHERE output = ?", place)
        return os.fsdecode(row[0]) if row else None

    def made_of(self, output: Path) -> str | None:
        """The source of the result that lies there, or will in a moment; None when upres did not make it."""
        row = self._first("SELECT source FROM results WHERE output = ?", self._place(output))
        return os.fsdecode(row[0]) if row else None

    def record(self, identity: Identity, options: str, output: Path, done: bool) -> None:
        """A result is being written there, or is; whatever was there before is not there any more."""
        source, size, mtime_ns = identity
        row = (self._place(output), os.fsencode(source), size, mtime_ns, options, done)
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)", row)

    def _place(self, output: Path) -> bytes:
        """The name under which an output is known, whatever the folder is called today."""
        return os.fsencode(os.path.relpath(output.absolute(), self._folder))

    def _first(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock, closing(self._database.execute(query, values)) as rows:
            found: tuple[Any, ...] | None = rows.fetchone()
            return found
