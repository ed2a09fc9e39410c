"""Recognises results of upres among the photos of a command, by the ledgers in the folders that may contain them."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from upres.client.ledger import BUSY_SECONDS, NAME, place_of


class KnownResults:
    """Knows the results of earlier commands. To be used by one thread at a time.

    A result is recorded in the ledger of its output folder, which is its own folder or one above. So the ledgers in all
    these are asked, and are kept open while the next paths are below the same folders.
    """

    def __init__(self) -> None:
        self.left_out = 0
        """Number of results that the command has not enlarged, because they are results."""
        self._folder: Path | None = None
        self._ledgers: dict[Path, sqlite3.Connection | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(set(self._ledgers))

    def made(self, image: str) -> bool:
        """Whether upres made the file at this path. One that was changed or moved since then is its user's."""
        try:
            size = os.stat(image).st_size
        except (OSError, ValueError):  # a URL, `-`, a pattern
            return False
        path = Path(os.path.realpath(os.path.dirname(image)), os.path.basename(image))
        self._enter(path.parent)
        return any(ledger and _made(ledger, folder, path, size) for folder, ledger in self._ledgers.items())

    def _enter(self, folder: Path) -> None:
        if folder == self._folder:
            return
        chain = [folder, *folder.parents]
        self._close(self._ledgers.keys() - set(chain))
        self._ledgers |= {one: _opened(one) for one in chain if one not in self._ledgers}
        self._folder = folder

    def _close(self, folders: set[Path]) -> None:
        for folder in folders:
            if ledger := self._ledgers.pop(folder):
                ledger.close()


def _opened(folder: Path) -> sqlite3.Connection | None:
    """The ledger in a folder; None without a usable one."""
    path = folder / NAME
    if not os.path.isfile(path):
        return None
    # Only a connection that may write deletes SQLite's own files (-wal, -shm) at its end. Where it may not, there is
    # nobody who changes the ledger, or it cannot be read.
    for mode in ("mode=rw", "mode=ro&immutable=1"):
        with suppress(sqlite3.Error):
            place = f"{path.as_uri()}?{mode}"
            ledger = sqlite3.connect(place, timeout=BUSY_SECONDS, uri=True, check_same_thread=False)
            try:
                ledger.execute("SELECT output FROM results LIMIT 1").fetchall()
            except sqlite3.Error:
                ledger.close()
                raise
            return ledger
    return None


def _made(ledger: sqlite3.Connection, folder: Path, path: Path, size: int) -> bool:
    """Whether the ledger says that upres wrote a file of this size there, or is just writing it."""
    query = "SELECT 1 FROM results WHERE output = ? AND (size IS NULL OR size = ?)"
    with suppress(sqlite3.Error), closing(ledger.execute(query, (place_of(path, folder), size))) as rows:
        return rows.fetchone() is not None
    return False
