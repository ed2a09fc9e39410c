"""The manifest of an output folder: which images are done, so that none is enlarged twice, and no result overwritten.

A SQLite file: any number of images takes no memory, a crash leaves it whole, and two commands may share a folder.
"""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Self

NAME = ".upres.db"
BUSY_SECONDS = 30
_TABLES = """
CREATE TABLE IF NOT EXISTS done (
    source TEXT, options TEXT, bytes INTEGER, mtime_ns INTEGER, output TEXT, PRIMARY KEY (source, options)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (output TEXT PRIMARY KEY, source TEXT) WITHOUT ROWID;
"""

Identity = tuple[str, int, int]
"""Place, bytes, nanoseconds: see Source.identity."""


class Ledger:
    """What is done in one folder; of None, what is done in this command."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path()
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            folder / NAME if folder else ":memory:", timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")  # what a power cut loses is only done again
        self._database.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def finished(self, identity: Identity, options: str) -> Path | None:
        """Where the result of an image lies that has not changed since; None when it has to be made."""
        query = "SELECT output FROM done WHERE source = ? AND bytes = ? AND mtime_ns = ? AND options = ?"
        row = self._first(query, *identity, options)
        path = self._folder / row[0] if row else None
        return path if path and path.exists() else None

    def claim(self, output: Path, source: str) -> str | None:
        """Whose result an output path is already; None when it is this source's from now on."""
        with self._lock:
            self._database.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (self._relative(output), source))
        row = self._first("SELECT source FROM claims WHERE output = ?", self._relative(output))
        return str(row[0]) if row and row[0] != source else None

    def knows(self, output: Path) -> bool:
        """Whether somebody's result is to lie there."""
        return self._first("SELECT 1 FROM claims WHERE output = ?", self._relative(output)) is not None

    def record(self, identity: Identity, options: str, output: Path) -> None:
        """An image is done."""
        source, size, mtime_ns = identity
        row = (source, options, size, mtime_ns, self._relative(output))
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?)", row)

    def _relative(self, output: Path) -> str:
        return str(output.relative_to(self._folder)) if output.is_relative_to(self._folder) else str(output)

    def _first(self, query: str, *values: object) -> tuple[str, ...] | None:
        with self._lock, closing(self._database.execute(query, values)) as rows:
            found: tuple[str, ...] | None = rows.fetchone()
            return found
