"""Locks on open files. They end with the process, however it ends, and so tell whether a file is still in use."""

import sys
from pathlib import Path
from typing import IO

if sys.platform == "win32":

    def lock(file: IO[bytes]) -> bool:
        """Do nothing: Windows does not delete a file that is open."""
        return True

    def delete_if_unused(path: Path) -> bool:
        """Delete a file unless a process has it open. Returns whether it is gone."""
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

else:
    import fcntl

    def lock(file: IO[bytes]) -> bool:
        """Lock an open file until it is closed. Returns False when the file system has no locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def delete_if_unused(path: Path) -> bool:
        """Delete a file unless a process has locked it. Returns whether it is gone."""
        try:
            with path.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except FileNotFoundError:
            return True
        except OSError:  # it is locked, or the file system has no locks, so nobody knows
            return False
        return True
