"""Tests of the number of threads: quotas of control groups, processors that are allowed, and OMP_NUM_THREADS."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from upres.core import cgroups, cores
from upres.core.settings import Settings
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.model import Model

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A function that writes a file of the control groups; the machine has 8 processors, all of them allowed."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")

    return write


def v1(write: Write, folder: str, quota: int) -> None:
    write(f"{folder}/cpu.cfs_quota_us", str(quota))
    write(f"{folder}/cpu.cfs_period_us", "100000")


def test_without_a_limit_the_machine_counts(write: Write) -> None:
    assert (cores.count(), cores.limit()) == (8, None)
    write("own", "0::/")
    write("cpu.max", "max 100000")
    assert (cores.count(), cores.limit()) == (8, None)


@pytest.mark.parametrize(("quota", "threads"), [(50_000, 1), (100_000, 1), (150_000, 2), (400_000, 4), (5000_000, 8)])
def test_a_quota_is_rounded_up(write: Write, quota: int, threads: int) -> None:
    write("own", "0::/")
    write("cpu.max", f"{quota} 100000")
    assert cores.count() == threads
    v1(write, "cpu", quota)
    write("own", "3:cpu:/")
    assert cores.count() == threads


def test_the_smallest_quota_of_all_groups_above_counts(write: Write) -> None:
    write("own", "0::/pod/container")
    write("pod/container/cpu.max", "max 100000")
    write("pod/cpu.max", "250000 100000")
    write("cpu.max", "600000 100000")
    assert cores.count() == 3


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_version_1_has_two_names_for_its_folder_and_minus_one_for_no_quota(write: Write, mount: str) -> None:
    write("own", "5:memory:/x\n4:cpu,cpuacct:/a/b\n0::/")
    v1(write, f"{mount}/a/b", -1)
    v1(write, f"{mount}/a", 200_000)
    assert cores.count() == 2


def test_a_container_that_sees_the_path_of_the_machine_finds_its_quota_at_the_root(write: Write) -> None:
    write("own", "4:cpu,cpuacct:/docker/0123")
    v1(write, "cpu,cpuacct", 300_000)
    assert cores.count() == 3


@pytest.mark.parametrize("text", ["", "many", "-1 100000", "1", "100000 0"])
def test_a_file_with_something_else_is_no_quota(write: Write, text: str) -> None:
    write("own", "0::/")
    write("cpu.max", text)
    assert cores.count() == 8


def test_affinity_and_omp_num_threads_count(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5}, raising=False)
    assert cores.count() == 3
    for text, threads in {"2": 2, "2,4": 2, "100": 3, "0": 3, "": 3, "all": 3, "²": 3}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert cores.count() == threads, text


def test_half_a_core_has_three_slots_and_one_thread(write: Write, model: Model) -> None:
    write("own", "0::/")
    write("cpu.max", "50000 100000")
    assert Settings().slots == 3
    compute = OpenVinoCompute(model)
    assert {one.get_property("INFERENCE_NUM_THREADS") for one in compute._compiled.values()} == {1}
    assert compute.start(2, [np.zeros((8, 8, 3), np.uint8)])().shape == (1, 16, 16, 3)


def test_torch_gets_no_more_threads(weights: Model) -> None:
    """In a process of its own, because the number is the process's."""
    code = (
        "import torch; from upres.core import cores; from upres.worker.engine.torch_compute import TorchCompute;"
        "from upres.worker.model import open_folder; from pathlib import Path; import sys; cores.count = lambda: 1;"
        "TorchCompute(open_folder(Path(sys.argv[1])), 'cpu'); print(torch.get_num_threads())"
    )
    folder = next(iter(weights.files.values())).parent
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1", done.stderr
