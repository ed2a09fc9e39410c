"""The manifest of an output folder: the source of each result. It prevents repeated work and overwritten results.

It is a SQLite file: memory use does not grow with the number of images, a crash does not damage it, and several
commands can use one folder at the same time.
"""

import os
import re
import sqlite3
import threading
import uuid
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Self

from upres.client.atomic_file import delete_abandoned
from upres.client.file_lock import delete_if_unused, lock

NAME = ".upres.db"
BUSY_SECONDS = 30
MOUNTS = Path("/proc/self/mounts")
LOCAL = {b"bcachefs", b"btrfs", b"ext2", b"ext3", b"ext4", b"f2fs", b"overlay", b"tmpfs", b"xfs", b"zfs"}
"""File system types in /proc/self/mounts that only one machine mounts at a time."""
# Paths are stored as bytes, because not every path is valid text. `bytes` is the source's size, `size` the result's.
_TABLES = """
CREATE TABLE IF NOT EXISTS results (
    output BLOB PRIMARY KEY, source BLOB, bytes INTEGER, mtime_ns INTEGER, options TEXT, done INTEGER, size INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_source ON results (source, options);
CREATE TABLE IF NOT EXISTS claims (output BLOB PRIMARY KEY, source BLOB, run TEXT, inode TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_inode ON claims (inode);
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


def _inode(found: os.stat_result) -> str:
    return f"{found.st_dev}:{found.st_ino}"


def place_of(output: Path, folder: Path) -> bytes:
    """The name of a result in the ledger of a folder, a real path: relative, so that the folder may be moved."""
    return os.fsencode(
        os.path.relpath(os.path.join(_real(os.path.join(os.getcwd(), output.parent)), output.name), folder)
    )


@lru_cache(maxsize=256)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _lock_name(run: str) -> str:
    """The name of the file that a command keeps locked while it runs."""
    return f".upres-{run}.lock"


class Ledger:
    """The record of results in one folder; with None, in memory for this command. Raises OSError or sqlite3.Error.

    Output paths are claimed before an image is enlarged, and other commands with the same folder see the claims. They
    end with the command: each has a locked file, and claims of a command whose lock is gone are deleted.
    """

    def __init__(self, folder: Path | None) -> None:
        self._given = folder or Path()
        self._folder = self._given.resolve()
        self._lock = threading.Lock()
        self._run = uuid.uuid4().hex[:12]
        place = self._folder / NAME if folder else ":memory:"
        self._database = sqlite3.connect(place, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        try:
            self._alive = self._prepare(folder)
        except BaseException:
            self._database.close()
            raise
        self._forget_ended_runs(all_of_them=self._alive is None or not lock(self._alive))

    def _prepare(self, folder: Path | None) -> IO[bytes] | None:
        """Make the tables, and return the file that stays locked while this command runs; None without a folder."""
        with suppress(sqlite3.OperationalError):  # locked: another command is just setting the mode of a new file
            self._database.execute(f"PRAGMA journal_mode={_journal(self._folder)}")
        # synchronous=NORMAL may lose the last records in a power failure; those images are only enlarged again.
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_TABLES)
        with suppress(sqlite3.OperationalError):  # the column is there, except in ledgers of the first commits
            self._database.execute("ALTER TABLE results ADD COLUMN size INTEGER")
        self._database.executescript("BEGIN IMMEDIATE; ROLLBACK")  # fails at once where nothing can be recorded
        return (self._folder / _lock_name(self._run)).open("xb") if folder else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release_all()
        self._database.close()

    def finished(self, identity: Identity, options: str) -> Path | None:
        """The result of an unchanged image with these options, if it has its recorded size; else None."""
        source, size, mtime_ns = identity
        query = (
            "SELECT output, size FROM results WHERE source = ? AND options = ? AND bytes = ? AND mtime_ns = ? AND done"
        )
        row = self._first(query, os.fsencode(source), options, size, mtime_ns)
        path = self._given / os.fsdecode(row[0]) if row else None  # as the user wrote the folder
        with suppress(OSError):
            if row and path and path.stat().st_size == row[1]:
                return path
        return None

    def claim(self, output: Path, source: str) -> str | None:
        """Reserve an output path for a source until the command ends; None when reserved now, else the claimant."""
        place = self._place(output)
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            row = self._database.execute("SELECT source FROM claims WHERE output = ?", (place,)).fetchone()
            if row is None:
                self._database.execute(
                    "INSERT INTO claims VALUES (?, ?, ?, NULL)", (place, os.fsencode(source), self._run)
                )
        return None if row is None else os.fsdecode(row[0])

    def wrote(self, output: Path) -> None:
        """Note which file has the claimed path now; see `writer_of`."""
        row = (_inode(output.stat()), self._place(output), self._run)
        with self._lock:
            self._database.execute("UPDATE claims SET inode = ? WHERE output = ? AND run = ?", row)

    def writer_of(self, existing: os.stat_result) -> str | None:
        """The source of a file that a running command wrote, under whatever name; else None."""
        row = self._first("SELECT source FROM claims WHERE inode = ?", _inode(existing))
        return os.fsdecode(row[0]) if row else None

    def release(self, output: Path) -> None:
        """Give up the claim of this command to a path."""
        query = "DELETE FROM claims WHERE output = ? AND run = ?"
        with self._lock:
            self._database.execute(query, (self._place(output), self._run))

    def release_all(self) -> None:
        """Give up all claims of this command. A full disk or a lost folder does not matter: the lock ends anyway."""
        with self._lock, suppress(sqlite3.Error):
            self._database.execute("DELETE FROM claims WHERE run = ?", (self._run,))
        if self._alive:
            self._alive.close()
            delete_if_unused(self._folder / _lock_name(self._run))

    def made_of(self, output: Path) -> str | None:
        """The source of the result at this path, finished or being written; None when upres did not write it."""
        row = self._first("SELECT source FROM results WHERE output = ?", self._place(output))
        return os.fsdecode(row[0]) if row else None

    def size_of(self, output: Path) -> int | None:
        """The size in bytes of the result that upres wrote to this path; None when it wrote none to its end."""
        row = self._first("SELECT size FROM results WHERE output = ?", self._place(output))
        return row[0] if row else None

    def record(self, identity: Identity, options: str, output: Path, size: int | None) -> None:
        """Record that a result is being written (`size` None), or is complete with `size` bytes; replaces the older."""
        source, source_bytes, mtime_ns = identity
        row = (self._place(output), os.fsencode(source), source_bytes, mtime_ns, options, size is not None, size)
        with self._lock:
            self._database.execute(
                "INSERT OR REPLACE INTO results (output, source, bytes, mtime_ns, options, done, size) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def _forget_ended_runs(self, all_of_them: bool) -> None:
        """Delete the claims of commands that have ended, and hidden files that they left in the folders of these.

        Without locks nobody knows which commands have ended. Then claims are not shared, and writing a file decides.
        """
        for (run,) in self._database.execute("SELECT DISTINCT run FROM claims").fetchall():
            if not delete_if_unused(self._folder / _lock_name(run)) and not all_of_them:
                continue
            claimed = self._database.execute("SELECT output FROM claims WHERE run = ?", (run,)).fetchall()
            for folder in {(self._folder / os.fsdecode(output)).parent for (output,) in claimed}:
                delete_abandoned(folder)
            self._database.execute("DELETE FROM claims WHERE run = ?", (run,))

    def _place(self, output: Path) -> bytes:
        return place_of(output, self._folder)

    def _first(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._lock, closing(self._database.execute(query, values)) as rows:
            found: tuple[Any, ...] | None = rows.fetchone()
            return found
