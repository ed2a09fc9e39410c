"""Writes a file so that other programs see it only when it is complete."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_unfinished: set[Path] = set()


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file under a temporary name, and rename it when complete. After an error the old file remains."""
    part = path.with_name(f".upres-{uuid.uuid4().hex[:12]}.part")
    _unfinished.add(part)
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        _unfinished.discard(part)


def delete_unfinished() -> None:
    """Delete the temporary files of all threads. To be called before os._exit, which runs no `finally` in them."""
    for part in list(_unfinished):
        with suppress(OSError):
            part.unlink()
