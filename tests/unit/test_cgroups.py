"""Tests of the limits of control groups, with the files as Linux writes them."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from upres.core import cgroups
from upres.worker.engine.device import host_memory

Write = Callable[[str, str], None]
MIB = 1 << 20
V1_NONE = "9223372036854771712"
"""What version 1 says where there is no limit."""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A function that writes a file below the root of the groups; `own` is the list of this process's groups."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def group(write: Write, folder: str, names: tuple[str, str, str], limit: str, used: int, cache: int) -> None:
    write(f"{folder}/{names[0]}", limit + "\n")
    write(f"{folder}/{names[1]}", f"{used}\n")
    write(f"{folder}/memory.stat", f"anon 5\n{names[2]} {cache}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_a_container_sees_its_limit_at_the_root(write: Write) -> None:
    write("own", "0::/\n")
    group(write, "cgroup", V2, str(1100 * MIB), 700 * MIB, 100 * MIB)
    assert list(cgroups.memory_limits()) == [(1100 * MIB, 600 * MIB)]
    assert host_memory() == (500 * MIB, 1100 * MIB)


def test_the_smallest_limit_of_all_groups_above_counts(write: Write) -> None:
    write("own", "0::/a/b\n")
    group(write, "cgroup/a/b", V2, "max", 100 * MIB, 0)
    group(write, "cgroup/a", V2, str(800 * MIB), 300 * MIB, 0)
    assert host_memory() == (500 * MIB, 800 * MIB)


def test_version_1_has_other_names(write: Write) -> None:
    write("own", "9:cpu,cpuacct:/x\n4:memory:/x\n0::/\n")
    group(write, "cgroup/memory/x", V1, str(600 * MIB), 200 * MIB, 50 * MIB)
    group(write, "cgroup/memory", V1, V1_NONE, 9000 * MIB, 0)
    assert host_memory() == (450 * MIB, 600 * MIB)


def test_without_groups_the_machine_counts(write: Write) -> None:
    assert host_memory()[1] == psutil.virtual_memory().total
    write("own", "0::/\n")
    assert host_memory()[1] == psutil.virtual_memory().total
