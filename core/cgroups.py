"""The limits of the control groups of this process (cgroups(7), versions 1 and 2), which containers set."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
MEMORY_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""Version of cgroups → the files with limit and use, and the line of memory.stat with what the kernel can drop."""


def memory_limits() -> Iterator[tuple[int, int]]:
    """Yield the limit in bytes, and the bytes in use, of each group above this process that limits memory.

    Files that the kernel can drop from its cache are not counted as used.
    """
    for version, group in _groups("memory"):
        limit_file, used_file, cache = MEMORY_FILES[version]
        limit, used = _number(group / limit_file), _number(group / used_file)
        if limit is not None and used is not None:
            yield limit, max(0, used - _cache(group, cache))


def cpu_quotas() -> Iterator[float]:
    """Yield the quota, as a number of cores, of each group above this process that limits processor time."""
    for version, group in _groups("cpu"):
        if version == 1:
            quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        else:
            quota, period = _pair(group / "cpu.max")
        if quota and period and quota > 0:  # version 1 says -1 where there is no quota
            yield quota / period


def _groups(controller: str) -> Iterator[tuple[Literal[1, 2], Path]]:
    """Yield the version and the folder of each group from this process's own up to the root that it can see.

    In a container the path may be that of the machine, of which only the root is there.
    """
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (controller, controllers) if controllers else ("",)
        folder = next((ROOT / mount for mount in mounts if (ROOT / mount).is_dir()), ROOT)
        names = [name for name in path.split("/") if name]
        for count in range(len(names), -1, -1):
            yield 1 if controllers else 2, folder.joinpath(*names[:count])


def _cache(group: Path, name: str) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _pair(file: Path) -> tuple[int | None, int | None]:
    """Read the two numbers in a file of the kernel; None for each that is missing or «max»."""
    with suppress(OSError, ValueError):
        quota, period = file.read_text().split()
        return int(quota), int(period)
    return None, None


def _number(file: Path) -> int | None:
    """Read the number in a file of the kernel; None when the file is missing or contains «max»."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
