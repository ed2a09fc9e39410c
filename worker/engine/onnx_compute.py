"""Runs ONNX graphs with ONNX Runtime, on a CPU or on CUDA: for int8, and for workers without torch."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from upres.core import cores
from upres.core.errors import ModelError
from upres.core.manifest import GRAPH_INPUT, GRAPH_OUTPUT
from upres.core.onnx_graph import SUM
from upres.worker.engine import graphs, memory_errors
from upres.worker.engine.compute import Finish, OutOfMemory, Pixels, check_finite
from upres.worker.engine.device import Device
from upres.worker.model import Model

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class OnnxCompute:
    """ONNX graphs from uint8 to uint8, as `upres models export` makes them.

    Raises ModelError when ONNX Runtime cannot run a graph or use the device.
    """

    precision = "as stored"
    batches_ahead = 1
    seconds: float | None = None

    def __init__(self, model: Model, device: Device) -> None:
        if device.kind not in PROVIDERS:
            raise ModelError(f"ONNX Runtime runs model {model} on a CPU or on CUDA; UPRES_DEVICE is {device.kind}.")
        self._kind = device.kind
        self.batch_pixels = 2 * 640 * 640 if device.kind == "cuda" else 128 * 128
        self.warm_up_side = 640 if device.kind == "cuda" else 64
        self._sessions, self._outputs = {}, {}
        for network in model.manifest.networks:
            assert network.onnx, "runtimes.choose takes OnnxCompute only if all networks have graphs"
            file = network.onnx.file
            try:
                session = onnxruntime.InferenceSession(
                    graphs.read(network, model), _options(), providers=[_provider(device.kind)]
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
            if reason := memory_errors.reason(error):
                raise OutOfMemory(reason) from None
            raise
        enlarged: Pixels = results[0]
        for total in results[1:]:
            check_finite(float(total.item()))
        return lambda: enlarged

    def probe(self) -> None:
        """Copy a number to the device and back (see Compute)."""
        sent = onnxruntime.OrtValue.ortvalue_from_numpy(np.full(1, 8, np.float32), self._kind, 0)
        assert sent.numpy()[0] == 8

    def largest_batch(self, factor: int) -> None:
        """ONNX Runtime does not tell what a batch needs (see Compute)."""


def _provider(kind: str) -> tuple[str, dict[str, str]]:
    """Return the provider and its options. An exhaustive search of algorithms takes seconds for each new shape."""
    return PROVIDERS[kind], {"cudnn_conv_algo_search": "HEURISTIC"} if kind == "cuda" else {}


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # only errors: its warnings do not help an operator
    options.intra_op_num_threads = cores.limit() or 0  # 0: its own choice
    return options
