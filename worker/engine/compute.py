"""The networks of a model on a device: uint8 windows in, uint8 windows out; scaling and rounding happen there.

Which library runs them is chosen by what is installed and fastest: torch in half precision on CUDA and MPS; on a CPU
OpenVINO, in bfloat16 where the processor has it, six times as fast as eager torch in float32; ONNX Runtime where there
is neither torch nor OpenVINO. See benchmarks/RESULTS.md.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.errors import ModelError
from worker.engine.device import Device
from worker.model import Model

Pixels = npt.NDArray[np.uint8]
Finish = Callable[[], Pixels]
"""Waits for a batch that was started: (count, height·factor, width·factor, 3)."""


class OutOfMemory(Exception):
    """The device has too little memory for a batch; a smaller one may fit."""


class Compute(Protocol):
    """The networks of one model on one device. Called from one thread."""

    precision: str
    """What tiles are computed in, for people."""
    batch_pixels: int
    """How many pixels a batch may have before more of them make it no faster per pixel."""
    batches_ahead: int
    """How many batches may be under way: 1 where `start` itself does the work."""
    warm_up_side: int
    """Side of the window, in pixels, with which the first use is prepared for all others."""

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Begin with a batch of windows, (height, width, 3) each, all of one shape.

        Raises OutOfMemory, here or in what is returned, when the device has too little memory.
        """
        ...


def choose(model: Model, device: Device, cache: Path | None = None) -> Compute:
    """What is fastest on the device within 0.01 dB of float32; `cache` is a folder for what takes long to prepare.

    Raises ModelError when nothing that is installed here can run the model.
    """
    networks = model.manifest.networks
    graphs = all(network.onnx for network in networks)
    only_graphs = any(network.architecture == "graph" for network in networks)
    # OpenVINO loses 0.4 dB of int8 graphs of which ONNX Runtime loses 0.02.
    int8 = any("int8" in network.precisions for network in networks)
    foreign = any(network.architecture == "spandrel" for network in networks)  # tracing would freeze it
    openvino = find_spec("openvino") and (graphs or find_spec("torch")) and not (foreign or int8)
    if device.kind == "cpu" and openvino:
        from worker.engine.openvino_compute import OpenVinoCompute

        return OpenVinoCompute(model, cache)
    if graphs and (only_graphs or not find_spec("torch")):
        if not find_spec("onnxruntime"):
            raise ModelError(f'Model {model} is an ONNX graph: pip install "upres[onnx]" on the worker.')
        from worker.engine.onnx_compute import OnnxCompute

        return OnnxCompute(model, device)
    if not find_spec("torch"):
        raise ModelError(f"Model {model} needs torch, which this worker does not have; give it an ONNX version.")
    from worker.engine.torch_compute import TorchCompute

    return TorchCompute(model, device.kind)
