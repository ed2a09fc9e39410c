"""The manifest of an output folder: the source of each result. It prevents repeated work and overwritten results.

It is a SQLite file: memory use does not grow with the number of images, a crash does not damage it, and two commands
can use one folder at the same time.
"""

import os
import re
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

NAME = ".upres.db"
BUSY_SECONDS = 30
MOUNTS = Path("/proc/self/mounts")
LOCAL = {b"bcachefs", b"btrfs", b"ext2", b"ext3", b"ext4", b"f2fs", b"overlay", b"tmpfs", b"xfs", b"zfs"}
"""File system types in /proc/self/mounts that only one machine mounts at a time."""
# Paths are stored as bytes, because not every path is valid text. `claims` is temporary: it belongs to this command.
_TABLES = """
CREATE TABLE IF NOT EXISTS results (
    output BLOB PRIMARY KEY, source BLOB, bytes INTEGER, mtime_ns INTEGER, options TEXT, done INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_source ON results (source, options);
CREATE TEMPORARY TABLE claims (output BLOB PRIMARY KEY, source BLOB) WITHOUT ROWID;
"""

Identity = tuple[str, int, int]
"""Real path or URL, size in bytes, modification time in nanoseconds: see Source.identity."""


def _journal(folder: Path) -> str:
    """The SQLite journal mode for a database in a folder: WAL, with which a commit does not wait for the disk.

    It is DELETE unless the file system is known to be local: WAL needs memory that all users of the file share, so they
    must be on one machine (sqlite.org/wal.html).
    """
    try:
        mounts = [line.split() for line in MOUNTS.read_bytes().splitlines()]
    except OSError:  # not Linux
        return "DELETE"
    found, longest = b"", 0
    for _, escaped, kind, *_ in mounts:
        place = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), escaped)
        if longest <= len(place) and folder.is_relative_to(os.fsdecode(place)):  # later mounts hide earlier ones
            found, longest = kind, len(place)
    return "WAL" if found in LOCAL else "DELETE"


class Ledger:
    """The record of results in one folder; with None, in memory for this command. Raises OSError or sqlite3.Error."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = (folder or Path()).resolve()
        self._lock = threading.Lock()
        place = self._folder / NAME if folder else ":memory:"
        self._database = sqlite3.connect(place, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        with suppress(sqlite3.OperationalError):  # locked: another command is just setting the mode of a new file
            self._database.execute(f"PRAGMA journal_mode={_journal(self._folder)}")
        # synchronous=NORMAL may lose the last records in a power failure; those images are only enlarged again.
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def finished(self, identity: Identity, options: str) -> Path | None:
        """The existing result of an unchanged image with these options; None when it has to be enlarged."""
        source, size, mtime_ns = identity
        query = "SELECT output FROM results WHERE source = ? AND options = ? AND bytes = ? AND mtime_ns = ? AND done"
        row = self._first(query, os.fsencode(source), options, size, mtime_ns)
        path = self._folder / os.fsdecode(row[0]) if row else None
        return path if path and path.exists() else None

    def claim(self, output: Path, source: str) -> str | None:
        """Reserve an output path for a source in this command; None when reserved now, else the earlier claimant."""
        place = self._place(output)
        with self._lock:
            done = self._database.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (place, os.fsencode(source)))
        if done.rowcount:
            return None
        row = self._first("SELECT source FROM claims WHERE output = ?", place)
        return os.fsdecode(row[0]) if row else None

    def made_of(self, output: Path) -> str | None:
        """The source of the result at this path, finished or being written; None when upres did not write it."""
        row = self._first("SELECT source FROM results WHERE output = ?", self._place(output))
        return os.fsdecode(row[0]) if row else None

    def record(self, identity: Identity, options: str, output: Path, done: bool) -> None:
        """Record that a result is being written to a path (`done` False) or is complete; replaces the older record."""
        source, size, mtime_ns = identity
        row = (self._place(output), os.fsencode(source), size, mtime_ns, options, done)
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)", row)

    def _place(self, output: Path) -> bytes:
        """The path relative to the folder, so that records stay valid when the folder is moved or renamed."""
        return os.fsencode(os.path.relpath(output.absolute(), self._folder))

    def _first(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock, closing(self._database.execute(query, values)) as rows:
            found: tuple[Any, ...] | None = rows.fetchone()
            return found
