"""What the device thread makes of errors of a device: lost, out of memory, or the fault of one image.

The messages are those that CUDA, cuDNN, cuBLAS, torch and ONNX Runtime print; the devices that raise them are fakes.
"""

import gc
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from tests.support.devices import torch_on_it
from tests.unit.test_batching import Scripted, window
from upres.core.errors import DeviceLost, OutputNotFinite
from upres.worker.engine import memory_errors, torch_compute
from upres.worker.engine.compute import Compute, Finish, OutOfMemory, Pixels
from upres.worker.engine.device_thread import DeviceThread, Shape, Window
from upres.worker.engine.limits import Limits
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model


class Fail(Exception):
    """As ONNX Runtime's errors: no RuntimeError."""


BROKEN = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: unknown error"),
    RuntimeError("CUDA error: the launch timed out and was terminated"),
    RuntimeError("CUDA error: misaligned address"),
    RuntimeError("CUDA error: an illegal instruction was encountered"),
    RuntimeError("CUDA error: hardware stack error"),
    RuntimeError("CUDA error: uncorrectable NVLink error detected during the execution"),
    RuntimeError("CUDA error: context is destroyed"),
    RuntimeError("CUDA error: invalid program counter"),
    RuntimeError("CUDA error: operation not supported on global/shared address space"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    Fail("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 719: unspecified launch failure"),
    Fail("[ONNXRuntimeError] : 11 : EP_FAIL : CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED"),
]
NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.50 GiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    Fail("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 9"),
    Fail("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory"),
    MemoryError(),
]


class Dead(Scripted):
    """A device that fails once it has been used, and then does not answer any more, as a dead CUDA context."""

    def __init__(self, error: Exception, answers: bool = False) -> None:
        super().__init__(lambda windows: error)
        self.error, self.answers, self.probes = error, answers, 0

    def probe(self) -> None:
        self.probes += 1
        if not self.answers:
            raise self.error


@pytest.fixture
def thread() -> Iterator[DeviceThread]:
    with DeviceThread() as running:
        yield running


def submit(thread: DeviceThread, compute: Compute, limits: Limits, pixels: Pixels, lane: Any = None) -> Future[Pixels]:
    shape = Shape(compute, limits, 2, pixels.shape[0], pixels.shape[1], 0)
    return thread.submit(lane or thread.open_lane(), Window(pixels, shape, Future()))


@pytest.mark.parametrize("error", BROKEN, ids=str)
def test_a_device_that_does_not_answer_after_an_error_is_lost(thread: DeviceThread, error: Exception) -> None:
    """Whatever the error says. So a worker does not fail one job after the other."""
    dead = Dead(error)
    with pytest.raises(DeviceLost, match="tried again elsewhere"):
        submit(thread, dead, Limits(640, 1000), window(1)).result(20)
    assert thread.lost
    with pytest.raises(DeviceLost):
        submit(thread, dead, Limits(640, 1000), window(1))


@pytest.mark.parametrize("error", BROKEN, ids=str)
def test_a_device_that_answers_is_not_lost_and_the_image_has_the_error(thread: DeviceThread, error: Exception) -> None:
    dead = Dead(error, answers=True)
    with pytest.raises(type(error)):
        submit(thread, dead, Limits(640, 1000), window(1)).result(20)
    assert (dead.probes, thread.lost) == (1, None)


def test_an_output_that_is_not_finite_is_no_reason_to_ask_the_device(thread: DeviceThread) -> None:
    dead = Dead(OutputNotFinite("the output is no image"))
    with pytest.raises(OutputNotFinite):
        submit(thread, dead, Limits(640, 1000), window(1)).result(20)
    assert dead.probes == 0


def test_the_error_of_the_second_attempt_counts(thread: DeviceThread) -> None:
    """The batch fails for one reason, and the window alone for another one: then the device is lost."""
    errors = iter([ValueError("the first one"), *[RuntimeError("CUDA error: unknown error")] * 5])

    class Twice(Dead):
        def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
            raise next(errors)

    with pytest.raises(DeviceLost, match="unknown error"):
        submit(thread, Twice(RuntimeError("no answer")), Limits(640, 1000), window(1)).result(20)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: str(error) or "MemoryError")
def test_lack_of_memory_is_recognised_by_all_its_names(error: Exception) -> None:
    assert memory_errors.reason(error)


@pytest.mark.parametrize("error", [*BROKEN, ValueError("bad"), OSError("no space")], ids=str)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert memory_errors.reason(error) is None


@pytest.mark.parametrize("where", ["start", "finish"])
@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: str(error) or "MemoryError")
def test_torch_reports_lack_of_memory_without_holding_the_failed_batch(
    model: Model, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    """An error that holds frames holds their tensors, and the retry would lack their memory, too."""
    compute = TorchCompute(model, "cpu", "float32")
    held: list[weakref.ref[Any]] = []

    def fail(*arguments: Any) -> None:
        batch = torch.zeros(1000)
        held.append(weakref.ref(batch))
        raise error

    event = type("Event", (), {"record": lambda self: None, "synchronize": fail})
    if where == "finish":
        monkeypatch.setattr(compute, "_event", lambda timed=False: event())
    else:
        monkeypatch.setattr(compute, "_on_host", fail)
    found = None
    try:
        compute.start(2, [window(1)])()
    except OutOfMemory as out:
        found = out
    assert found is not None
    assert (found.__cause__, found.__context__) == (None, None)
    error.__traceback__ = None
    gc.collect()
    assert held
    assert not any(one() is not None for one in held)


def test_the_device_is_as_busy_as_its_own_clock_says(thread: DeviceThread) -> None:
    """The host needs longer for a batch than a fast device: it copies, and delivers results."""

    class Fast(Scripted):
        seconds: float | None = 0.0

        def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
            self.seconds = (self.seconds or 0) + 0.25
            return super().start(factor, windows)

    fast = Fast()
    limits, lane = Limits(8, 64), thread.open_lane()
    for number in range(4):
        submit(thread, fast, limits, window(number), lane).result(20)
    assert 0.75 <= thread.stats.busy_seconds <= 1


def test_models_share_the_streams_of_a_device(model: Model) -> None:
    one, other = (TorchCompute(model, "cpu", "float32") for _ in range(2))
    assert one._streams is other._streams


@pytest.mark.parametrize(
    ("kind", "precisions", "chosen"),
    [
        ("cuda", ("bfloat16", "float16", "float32"), "float16"),
        ("cuda", ("bfloat16", "float32"), "bfloat16"),
        ("cuda", ("float32",), "float32"),
        ("mps", ("bfloat16", "float16", "float32"), "float16"),
        ("cpu", ("bfloat16", "float16", "float32"), "float32"),
    ],
)
def test_float16_is_preferred_on_gpus(model: Model, kind: str, precisions: Any, chosen: str) -> None:
    networks = [one.model_copy(update={"precisions": precisions}) for one in model.manifest.networks]
    assert torch_compute.best(kind, networks) == chosen


@pytest.mark.device
def test_the_probes_of_both_runtimes_answer(model: Model) -> None:
    from upres.worker.engine.onnx_compute import OnnxCompute

    torch_on_it(model).probe()
    onnx = object.__new__(OnnxCompute)
    onnx._kind = "cpu"
    onnx.probe()
