"""The memory limits of the control groups of this process (cgroups(7), versions 1 and 2), which containers set."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


class _Version(NamedTuple):
    """Where a version of cgroups has the files of a group, and how they are called."""

    mount: str
    limit: str
    used: str
    cache: str


VERSIONS = (
    _Version("", "memory.max", "memory.current", "inactive_file"),
    _Version("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def limits() -> Iterator[tuple[int, int]]:
    """Yield the limit in bytes, and the bytes in use, of each group above this process that limits memory.

    Files that the kernel can drop from its cache are not counted as used.
    """
    for version, path in _groups():
        folder = ROOT / version.mount
        while True:
            group = folder / path.lstrip("/")
            limit, used = (_number(group / name) for name in (version.limit, version.used))
            if limit is not None and used is not None:
                yield limit, max(0, used - _cache(group, version.cache))
            if path in ("", "/"):
                break
            path = path.rpartition("/")[0]


def _groups() -> Iterator[tuple[_Version, str]]:
    """The paths of this process's groups that may limit memory."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield VERSIONS[0], path
        elif "memory" in controllers.split(","):
            yield VERSIONS[1], path


def _cache(group: Path, name: str) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _number(file: Path) -> int | None:
    """Read the number in a file of the kernel; None when the file is missing or contains «max»."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
