"""Reads the ONNX graphs of a model; those of a mixed version with interpolated weights, without torch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from upres.core import onnx_graph
from upres.core.errors import ModelError
from upres.core.manifest import Network
from upres.worker.model import Model

FLOATS: dict[object, str] = {1: "<f4", 10: "<f2"}
"""Types of ONNX for floating-point numbers of networks → those of numpy."""


def exist(model: Model) -> bool:
    """Return whether each network of the model, and of its base, has an ONNX graph."""
    return all(network.onnx for network in model.manifest.networks) and (not model.base or exist(model.base))


def read(network: Network, model: Model) -> bytes:
    """Return the ONNX graph of a network, with the output `onnx_graph.SUM`. Raises ModelError."""
    assert network.onnx
    graph = model.files[network.onnx.file].read_bytes()
    if model.base and model.strength != 1:
        base = model.base_network(network)
        assert base.onnx
        graph = mixed(network.onnx.file, graph, model.base.files[base.onnx.file].read_bytes(), model.strength or 0)
    return onnx_graph.with_sum(graph)


def mixed(name: str, own: bytes, base: bytes, strength: float) -> bytes:
    """Return the graph `own` with weights (1 - strength) · the base's + strength · its own, found by their names.

    Raises ModelError when their tensors have other names or sizes, or are stored in another way: a graph that is not
    mixed would make images that nobody asked for.
    """
    made = bytearray(own)
    before, ours = dict(_tensors(name, base)), dict(_tensors(name, made))
    if before.keys() != ours.keys() or not ours:
        raise ModelError(f"{name} cannot be mixed with its base: their tensors have other names.")
    for tensor, values in ours.items():
        theirs = before[tensor]
        if theirs.size != values.size:
            raise ModelError(f"{name} cannot be mixed with its base: the tensor {tensor} is of another size there.")
        if not np.array_equal(theirs, values):  # else a constant, which rounding must not change
            values[:] = (1 - strength) * theirs.astype(np.float32) + strength * values.astype(np.float32)
    return bytes(made)


def _tensors(name: str, graph: bytes | bytearray) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield names and numbers of the floating-point tensors of a graph, as views of its bytes. Raises ModelError."""
    for tensor, kind, numbers in onnx_graph.initializers(graph):
        if kind in onnx_graph.FLOATS:
            if kind not in FLOATS or numbers is None:
                raise ModelError(f"{name} cannot be mixed: the tensor {tensor} is not float32 or float16 in raw data.")
            yield tensor, np.frombuffer(numbers, FLOATS[kind])
