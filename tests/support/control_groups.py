"""Control groups of Linux, versions 1 and 2: a limit on memory as a container has it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

GROUPS = {"memory.max": Path("/sys/fs/cgroup"), "memory.limit_in_bytes": Path("/sys/fs/cgroup/memory")}
"""The file with the limit → the root of the control groups, versions 2 and 1."""


@contextmanager
def memory_limit(size: int) -> Iterator[Path]:
    """Make a control group with `size` bytes of memory; yields its folder. Skips where that is not allowed."""
    for name, root in GROUPS.items():
        group = root / f"upres-test-{uuid.uuid4().hex[:8]}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / name).exists():
                continue
            (group / name).write_text(str(size))
            yield group
            return
        finally:
            group.rmdir()
    pytest.skip("control groups cannot be made here")
