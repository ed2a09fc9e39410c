"""Runs ONNX graphs with ONNX Runtime, on a CPU or on CUDA: for int8, and for workers without torch."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from upres.core.errors import ModelError
from upres.core.manifest import GRAPH_INPUT, GRAPH_OUTPUT
from upres.core.onnx_graph import SUM
from upres.worker.engine import graphs
from upres.worker.engine.compute import Finish, OutOfMemory, Pixels, check_finite
from upres.worker.engine.device import Device
from upres.worker.model import Model

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
OUT_OF_MEMORY = ("Failed to allocate memory", "out of memory", "CUDA failure 2")
"""Texts in ONNX Runtime's errors when memory runs out, because it has no exception type for them."""


class OnnxCompute:
    """ONNX graphs from uint8 to uint8, as `upres models export` makes them.

    Raises ModelError when ONNX Runtime cannot run a graph or use the device.
    """

    precision = "as stored"
    batches_ahead = 1

    def __init__(self, model: Model, device: Device) -> None:
        if device.kind not in PROVIDERS:
            raise ModelError(f"ONNX Runtime runs model {model} on a CPU or on CUDA; UPRES_DEVICE is {device.kind}.")
        self.batch_pixels = 2 * 640 * 640 if device.kind == "cuda" else 128 * 128
        self.warm_up_side = 640 if device.kind == "cuda" else 64
        self._sessions, self._outputs = {}, {}
        for network in model.manifest.networks:
            assert network.onnx, "runtimes.choose takes OnnxCompute only if all networks have graphs"
            file = network.onnx.file
            try:
                session = onnxruntime.InferenceSession(
                    graphs.read(network, model), _options(), providers=[PROVIDERS[device.kind]]
                )
            except Exception as error:  # ONNX Runtime has no common base of its errors
                raise ModelError(f"{file} is no graph that ONNX Runtime can run ({error}).") from error
            if session.get_providers()[0] != PROVIDERS[device.kind]:
                raise ModelError(f"This ONNX Runtime cannot use {device.kind}; on CUDA it takes onnxruntime-gpu.")
            names = {output.name for output in session.get_outputs()}
            self._sessions[network.factor] = session
            self._outputs[network.factor] = [name for name in (GRAPH_OUTPUT, SUM) if name in names]

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Compute a batch at once (see Compute)."""
        try:
            results = self._sessions[factor].run(self._outputs[factor], {GRAPH_INPUT: np.stack(windows)})
        except Exception as error:
            if any(sign in str(error) for sign in OUT_OF_MEMORY):
                raise OutOfMemory(str(error)) from error
            raise
        enlarged: Pixels = results[0]
        for total in results[1:]:
            check_finite(float(total.item()))
        return lambda: enlarged


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # only errors: its warnings do not help an operator
    return options
