"""Chooses the library that runs a model: the fastest one that is installed and can run it.

torch, in half precision, runs models on CUDA and MPS. OpenVINO runs them on a CPU, in bfloat16 where the CPU supports
it: six times as fast as eager torch in float32. ONNX Runtime runs them where neither is installed, and runs int8. See
benchmarks/RESULTS.md.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from upres.core.errors import ModelError
from upres.worker.engine import graphs as onnx_graphs
from upres.worker.engine.compute import Compute
from upres.worker.engine.device import Device
from upres.worker.model import Model

if TYPE_CHECKING:  # trials.py needs openvino, which need not be installed
    from upres.worker.engine.trials import Outcome


def choose(model: Model, device: Device, cache: Path | None = None) -> Compute:
    """Load a model into the library that is fastest on the device, with results within 0.01 dB of float32.

    `cache` is a folder for converted networks. Raises ModelError when no installed library can run the model.
    """
    networks = model.manifest.networks
    graphs = onnx_graphs.exist(model)
    only_graphs = any(network.architecture == "graph" for network in networks)
    # With int8 graphs OpenVINO loses 0.4 dB, ONNX Runtime only 0.02 dB.
    int8 = any("int8" in network.precisions for network in networks)
    foreign = any(network.architecture == "spandrel" for network in networks)
    if cache and _foreign(model, device) and (tried := _outcome(model, cache)) and tried.graphs:
        from upres.worker.engine.openvino_compute import OpenVinoCompute

        return OpenVinoCompute(model, tried=tried.graphs)
    openvino = find_spec("openvino") and (graphs or find_spec("torch")) and not (foreign or int8)
    if device.kind == "cpu" and openvino:
        from upres.worker.engine.openvino_compute import OpenVinoCompute

        return OpenVinoCompute(model, cache)
    if graphs and (only_graphs or not find_spec("torch")):
        if not find_spec("onnxruntime"):
            raise ModelError(f'Model {model} is an ONNX graph: pip install "upres[onnx]" on the worker.')
        from upres.worker.engine.onnx_compute import OnnxCompute

        return OnnxCompute(model, device)
    if not find_spec("torch"):
        raise ModelError(f"Model {model} needs torch, which this worker does not have; give it an ONNX version.")
    from upres.worker.engine.torch_compute import TorchCompute

    return TorchCompute(model, device.kind)


def untried(model: Model, device: Device, cache: Path) -> bool:
    """Return whether `try_openvino` would find out if OpenVINO can run this model, which torch runs so far."""
    return _foreign(model, device) and _outcome(model, cache) is None


def try_openvino(model: Model, cache: Path) -> bool:
    """Find out whether OpenVINO runs a community model well, which takes minutes: then `choose` chooses it from now on.

    Raises OSError when the outcome cannot be kept in the folder `cache`.
    """
    from upres.worker.engine import trials

    return not trials.run(model, cache).reason


def _foreign(model: Model, device: Device) -> bool:
    """Return whether a model has community networks, which OpenVINO may or may not convert well for this device."""
    community = any(network.architecture == "spandrel" for network in model.manifest.networks)
    return community and device.kind == "cpu" and all(find_spec(one) for one in ("openvino", "torch", "spandrel"))


def _outcome(model: Model, cache: Path) -> "Outcome | None":
    from upres.worker.engine import trials

    return trials.outcome(model, cache)
