"""The GPU that CUDA uses, as NVML and torch describe it. Both are imitated: this machine has no GPU."""

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from upres.core.errors import SettingsError
from upres.worker.engine import device, gpu
from upres.worker.engine.device import Device, Memory, choose, supports

A, B, MIG = "GPU-aaaaaaaa-0000", "GPU-bbbbbbbb-1111", "MIG-cccccccc-2222"


class NvmlError(Exception):
    """The base of NVML's errors."""


class Unknown(NvmlError):
    """NVMLError_NotFound."""


class NotSupported(NvmlError):
    """What MIG devices say to the question how busy they are."""


class Nvml:
    """A machine with two GPUs, in the order of the bus, and a MIG device, as pynvml answers about them."""

    NVMLError = NvmlError
    NVMLError_NotSupported = NotSupported
    NVMLError_InvalidArgument = type("InvalidArgument", (NvmlError,), {})

    def __init__(self, driver: bool = True) -> None:
        self.driver = driver

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise NvmlError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index > 1:
            raise Unknown
        return (A, B)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in (A, B, MIG):
            raise Unknown
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return {A: "A100", B: "T4", MIG: "A100 MIG 1g.5gb"}[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        free, total = {A: (30, 40), B: (15, 16), MIG: (4, 5)}[handle]
        return SimpleNamespace(free=free, total=total)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        if handle == MIG:
            raise NotSupported
        return SimpleNamespace(gpu=25)


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    made = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(gpu, "find_spec", lambda name: name == "pynvml")
    return made


@pytest.mark.parametrize(
    ("uuid", "visible", "name"),
    [
        ("bbbbbbbb-1111", None, "T4"),  # as torch gives it
        ("bbbbbbbb-1111", "0", "T4"),  # in CUDA's order another one may be the first
        ("cccccccc-2222", None, "A100 MIG 1g.5gb"),
        (None, None, "A100"),
        (None, "1", "T4"),
        (None, "1,0", "T4"),
        (None, B, "T4"),
        (None, "GPU-bbb", "T4"),  # CUDA accepts the beginning of a UUID
        (None, MIG, "A100 MIG 1g.5gb"),
        (None, "7", None),
        (None, "", None),
        ("dddddddd", None, None),
    ],
)
def test_the_gpu_is_the_one_that_cuda_uses(uuid: str | None, visible: str | None, name: str | None) -> None:
    found = gpu.find(uuid, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert (found.name if found else None) == name


def test_without_a_driver_there_is_no_gpu(nvml: Nvml) -> None:
    nvml.driver = False
    assert gpu.find(environment={}) is None


def test_memory_and_utilization_are_those_of_this_gpu() -> None:
    memory = Memory(Device("cuda", "T4", 16, 15, gpu.find("bbbbbbbb-1111")))
    memory.refresh()
    assert (memory.used, memory.total, memory.utilization) == (1, 16, 0.25)


def test_a_part_of_a_gpu_does_not_say_how_busy_it_is() -> None:
    memory = Memory(Device("cuda", "A100 MIG 1g.5gb", 5, 4, gpu.find("cccccccc-2222")))
    memory.refresh()
    assert (memory.used, memory.total, memory.utilization) == (1, 5, None)


ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_90"]


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (ARCHITECTURES, (7, 5), True),
        (ARCHITECTURES, (8, 0), True),
        (ARCHITECTURES, (8, 9), True),  # code for 8.6 runs on 8.9
        (ARCHITECTURES, (6, 1), False),
        (ARCHITECTURES, (7, 0), False),
        (ARCHITECTURES, (12, 0), True),  # PTX for 9.0 is compiled there
        (["sm_75", "sm_80"], (12, 0), False),
        (["sm_90a"], (9, 0), False),
        ([], (8, 0), False),
    ],
)
def test_a_build_runs_on_architectures_that_it_has_code_for(
    architectures: Sequence[str], capability: tuple[int, int], runs: bool
) -> None:
    assert supports(architectures, *capability) is runs


def test_a_gpu_that_is_asked_for_and_cannot_be_used_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """`UPRES_DEVICE=cuda` in deployments for GPUs: no worker there becomes a slow one on the CPU."""
    with pytest.raises(SettingsError, match=r"cuda is not available here \(torch .* is a build without CUDA\)"):
        choose("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update it.")

    monkeypatch.setattr(torch.cuda, "init", too_old)
    with pytest.raises(SettingsError, match=r"\(The NVIDIA driver .* \(found version 11040\)\.\)"):
        choose("cuda")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GTX 1080")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ARCHITECTURES)
    with pytest.raises(SettingsError, match=r"has no code for GTX 1080 \(sm_61\)"):
        choose("cuda")


def test_a_gpu_that_cannot_be_used_is_left_out_of_auto_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "GPUS", (type("There", (), {"exists": lambda self: True})(),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose("auto").kind == "cpu"
    assert "the GPU is not used: torch" in caplog.text
