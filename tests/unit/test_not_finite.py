"""Weights and outputs with NaN or infinite numbers: refused, on every runtime, and never shown as a black image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from tests.support import overflowing
from tests.support.devices import KIND, torch_on_it
from upres.core import onnx_graph, weights
from upres.core.errors import ModelError, OutputNotFinite
from upres.core.manifest import GRAPH_INPUT, Network
from upres.worker.engine.compute import Compute
from upres.worker.engine.device import choose as choose_device
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.onnx_compute import OnnxCompute
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.model import Model

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LIKELY = [0.0, -0.02, 1.0, -100.0, 60_000.0, 1e-30]
WINDOW = np.full((16, 16, 3), 200, np.uint8)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 2.0**17, -1e6])
def test_weights_that_no_trained_network_has_are_refused(dtype: torch.dtype, value: float) -> None:
    """2^17 and above are infinite in float16."""
    data = save({"fine": torch.tensor(LIKELY, dtype=dtype), "index": torch.tensor([2**40])})
    weights.check_safetensors("x", data)
    with pytest.raises(ModelError, match=r"x: the tensor body\.1 has a number that is not finite"):
        weights.check_safetensors("x", save({"body.1": torch.tensor([*LIKELY, value], dtype=dtype)}))


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"\2\0\0\0\0\0\0\0[]", b"\x08\0\0\0\0\0\0\0" + b'{"a":{}}'])
def test_a_damaged_head_of_a_safetensors_file_is_an_error(data: bytes) -> None:
    with pytest.raises(ModelError, match="no safetensors file"):
        weights.check_safetensors("x", data)


def _graph_of(bias: list[float], raw: bool) -> bytes:
    """A small ONNX graph whose weights are in one of two ways in the file."""
    given = np.array(bias, np.float32).tobytes() if raw else bias
    tensor = onnx.helper.make_tensor("bias", onnx.TensorProto.FLOAT, [len(bias)], given, raw=raw)
    node = onnx.helper.make_node("Identity", ["bias"], ["out"])
    output = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    made: bytes = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [], [output], [tensor])
    ).SerializeToString()
    return made


@pytest.mark.parametrize("raw", [True, False])
def test_a_graph_with_a_weight_that_is_not_finite_is_refused(raw: bool) -> None:
    onnx_graph.check("x.onnx", _graph_of([0.5, -3.0], raw))
    for value in (float("nan"), float("inf"), 1e6):
        with pytest.raises(ModelError, match=r"x\.onnx: the tensor bias"):
            onnx_graph.check("x.onnx", _graph_of([0.5, value], raw))


def _damaged(model: Model, folder: Path) -> Model:
    """The bundled model with one weight of the last layer of each network infinite, in its weights and its graphs."""
    files = dict(model.files)
    for network in model.manifest.networks:
        tensors = load_file(model.files[network.file])
        tensors["tail.bias"][0] = float("inf")
        files[network.file] = folder / network.file
        save_file(tensors, files[network.file])
        assert network.graph
        graph = onnx.load(model.files[network.graph.file])
        [bias] = [one for one in graph.graph.initializer if one.name.endswith("tail.bias")]
        bias.CopyFrom(onnx.numpy_helper.from_array(tensors["tail.bias"].numpy(), bias.name))
        files[network.graph.file] = folder / network.graph.file
        onnx.save(graph, files[network.graph.file])
    return model._replace(files=files)


def _weights(model: Model) -> Model:
    networks = tuple(network.model_copy(update={"graph": None}) for network in model.manifest.networks[1:])
    return model._replace(manifest=model.manifest.model_copy(update={"networks": networks}))


@pytest.mark.device
@pytest.mark.parametrize(
    "runtime",
    [
        torch_on_it,
        lambda model: torch_on_it(model, "bfloat16" if KIND == "cpu" else "float16"),
        lambda model: OpenVinoCompute(_weights(model)),
        OpenVinoCompute,
        lambda model: OnnxCompute(model, choose_device("cpu")),
    ],
    ids=["torch", "torch in half precision", "OpenVINO", "OpenVINO with a graph", "ONNX Runtime"],
)
def test_an_output_that_is_not_finite_is_an_error_on_every_runtime(
    runtime: Callable[[Model], Compute], model: Model, tmp_path: Path
) -> None:
    assert runtime(model).start(2, [WINDOW])().shape == (1, 32, 32, 3)
    compute = runtime(_damaged(model, tmp_path))
    with pytest.raises(OutputNotFinite, match="NaN or infinite"):
        compute.start(2, [WINDOW])()


@pytest.mark.device
def test_only_the_image_with_such_an_output_fails(model: Model, tmp_path: Path) -> None:
    network = Network.model_validate(overflowing.write(tmp_path))
    manifest = model.manifest.model_copy(update={"networks": (network,)})
    compute = torch_on_it(Model(manifest, "", {network.file: tmp_path / network.file}, 0))
    with pytest.raises(OutputNotFinite):
        compute.start(2, [WINDOW * 0, WINDOW])()
    with DeviceThread() as thread:
        engine = Engine(manifest, compute, thread)
        assert not engine.upscale(WINDOW * 0, 2).any()
        with pytest.raises(OutputNotFinite):
            engine.upscale(WINDOW, 2)


def test_a_graph_whose_bytes_are_not_made_of_numbers_is_left_as_it_is() -> None:
    node = onnx.helper.make_node("Identity", [GRAPH_INPUT], ["enlarged"])
    data = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])).SerializeToString()
    assert onnx_graph.with_sum(data) == data
