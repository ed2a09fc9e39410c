"""Folders of new versions: written beside their place, and moved there when they are complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upres.core.errors import ModelError


@contextmanager
def staging(to: Path) -> Iterator[Path]:
    """Yield the path of a folder to be written; at the end it is moved to `to`, which is missing or an empty folder.

    When the block raises anything, also KeyboardInterrupt, nothing is left. Raises ModelError when a file cannot be
    written; the message says where and why.
    """
    to = to.resolve()
    missing = [one for one in to.parents if not one.exists()]
    try:
        with _disk_errors(to):
            to.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".upres-", dir=to.parent) as temporary:
                made = Path(temporary) / "version"
                yield made
                _move(made, to)
    except BaseException:
        for one in missing:
            with suppress(OSError):  # it was not made, or others use it
                one.rmdir()
        raise


def _move(made: Path, to: Path) -> None:
    """Move the folder; into one that is there its files, the manifest last."""
    if not to.exists():
        os.rename(made, to)
        return
    for file in sorted(made.iterdir(), key=lambda file: file.name == "manifest.json"):
        shutil.move(file, to / file.name)


@contextmanager
def _disk_errors(to: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # By name, since that of safetensors can be imported only where it is installed, and `pull` needs it not.
        if not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
            raise
        where = getattr(error, "filename", None) or f"{to} or {tempfile.gettempdir()}"
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ModelError(f"The model cannot be written to {where}: {why}.") from error
