"""Runs networks on a CPU with OpenVINO: six times as fast as eager torch in float32 (benchmarks/RESULTS.md)."""

import hashlib
import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from upres.core import cores
from upres.core.manifest import GRAPH_OUTPUT, Network, Sides
from upres.core.onnx_graph import SUM
from upres.worker.engine import cpu_precision, graphs, sides
from upres.worker.engine.compute import check_finite
from upres.worker.model import Model, mark_used

log = logging.getLogger("upres.worker")

Pixels = npt.NDArray[np.uint8]


KERNELS = 500
"""Prepared kernels that OpenVINO keeps for each network: those of some 14 shapes of windows. With its default, 5,000,
the memory grew by 0.6 MB for each new size of a small image. By measurement fewer are slower, more are hardly faster.
"""
_CONVERTING = threading.Lock()
"""Held during a conversion: torch's tracing has one state for all threads, and two at once fail."""
_NOT_KEPT: set[Path] = set()
"""Folders of which the log has said that nothing can be kept there."""


class OpenVinoCompute:
    """OpenVINO on a CPU, in the fastest precision that the networks allow. Converted networks are kept in `cache`.

    `tried` has the files of graphs by their factors, if trials made them (trials.py): they run in float32, as in there,
    and window by window, because in some of them the count of the example is constant, too.
    """

    batch_pixels = 128 * 128
    batches_ahead = 1
    warm_up_side = 64
    seconds: float | None = None

    def __init__(self, model: Model, cache: Path | None = None, tried: Mapping[int, Path] | None = None) -> None:
        core = openvino.Core()
        self._one_by_one = bool(tried)
        networks = {network.factor: network for network in model.manifest.networks}
        self._sides = {factor: network.sides if tried else Sides() for factor, network in networks.items()}
        read = {
            factor: core.read_model(tried[factor]) if tried else _graph(core, network, model, cache)
            for factor, network in networks.items()
        }
        first = model.manifest.networks[0]
        half = not tried and all("bfloat16" in network.precisions for network in networks.values())
        wanted = cpu_precision.FLOAT32
        if half:
            folder = cache / "openvino" if cache else None
            wanted = cpu_precision.fastest(partial(_compiled, core, read[first.factor]), first, folder)
        self._compiled = {factor: _compiled(core, graph, wanted) for factor, graph in read.items()}
        inference = self._compiled[first.factor].get_property("INFERENCE_PRECISION_HINT")
        self.precision = {"bf16": "bfloat16", "f16": "float16"}.get(inference.get_type_name(), "float32")

    def start(self, factor: int, windows: Sequence[Pixels]) -> Callable[[], Pixels]:
        """Compute a batch at once (see Compute)."""
        batch = np.stack(windows)
        parts = np.split(batch, len(batch)) if self._one_by_one else [batch]
        made = [self._run(factor, part) for part in parts]
        done = np.concatenate(made) if len(made) > 1 else made[0]
        return lambda: done

    def probe(self) -> None:
        """A CPU cannot be lost (see Compute)."""

    def largest_batch(self, factor: int) -> None:
        """A CPU has no memory of its own (see Compute)."""

    def _run(self, factor: int, batch: Pixels) -> Pixels:
        """Enlarge windows, (count, height, width, 3). Raises OutputNotFinite."""
        results = self._compiled[factor](sides.padded(batch, self._sides[factor]))
        if len(results) > 1:
            check_finite(float(results[1].item()))
        done: Pixels = results[0][:, : batch.shape[1] * factor, : batch.shape[2] * factor]
        return done


def _compiled(core: Any, graph: Any, precision: str) -> Any:
    """Compile a graph for a precision, or float32 where the CPU does not have it."""
    hints = {"CPU_RUNTIME_CACHE_CAPACITY": str(KERNELS)}
    if threads := cores.limit():
        hints["INFERENCE_NUM_THREADS"] = str(threads)
    if precision == cpu_precision.FLOAT32:
        hints["INFERENCE_PRECISION_HINT"] = precision
    return core.compile_model(graph, "CPU", hints)


def _graph(core: Any, network: Network, model: Model, cache: Path | None) -> Any:
    """Read a network as an OpenVINO graph from bytes to bytes: its ONNX graph, else its converted torch module."""
    if not graphs.exist(model):
        return _cached(core, network, model, cache)
    whole = core.read_model(graphs.read(network, model))
    wanted = [output for output in whole.outputs if output.names & {GRAPH_OUTPUT, SUM}]
    return openvino.Model(sorted(wanted, key=lambda output: SUM in output.names), whole.get_parameters())


def converted(network: Network, model: Model, height: int = 8, width: int = 8) -> Any:
    """Convert a torch module to an OpenVINO graph for any count, height and width.

    The module is traced with an example of this height and width. Only a module that makes no step depend on them is
    right for others, too: the architectures of upres are; for others see trials.py.
    """
    import torch

    from upres.worker.engine.loading import load
    from upres.worker.engine.networks import ByteNetwork

    module = ByteNetwork(load(network, model))
    module.forward = module.checked  # type: ignore[method-assign, assignment]
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    with _CONVERTING, warnings.catch_warnings():
        # OpenVINO uses torch's tracing, which is deprecated; a conversion with torch.export takes three times as long.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Without torch's own check, which traces twice more: tests and trials compare the graph itself.
        traced = torch.jit.trace(module, example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        graph = openvino.convert_model(traced, example_input=example)
    graph.reshape([-1, -1, -1, 3])
    return graph


def _cached(core: Any, network: Network, model: Model, cache: Path | None) -> Any:
    """Return a converted network. A conversion takes a second, so its result is kept in the folder `cache`.

    What cannot be kept there is written into a temporary folder, since OpenVINO rounds a graph that it has read a
    little differently in bfloat16; where no folder can be written, the graph is used as it was converted in memory. The
    name of the network's folder is a digest of all that determines the result: OpenVINO's version, the code and the
    weights.
    """
    folder = cache and cache / "openvino" / _name(network, model)
    with suppress(RuntimeError):  # what OpenVINO cannot read is made again
        if folder and intact(folder):
            return core.read_model(folder / "graph.xml")
    graph = converted(network, model)
    if folder:
        try:
            _keep(graph, folder)
            return core.read_model(folder / "graph.xml")
        except (OSError, RuntimeError) as error:  # OpenVINO raises RuntimeError when it cannot write, or read
            _say_once(folder.parent, error)
    with suppress(OSError, RuntimeError), tempfile.TemporaryDirectory() as temporary:
        save(graph, Path(temporary))
        return core.read_model(*(Path(temporary, f"graph.{kind}").read_bytes() for kind in ("xml", "bin")))
    return graph


def _say_once(folder: Path, error: Exception) -> None:
    """Say in the log that nothing can be kept in a folder, once for all networks."""
    if folder not in _NOT_KEPT:
        what = "UPRES_CACHE_DIR: converted networks cannot be kept in %s: %s; they are converted at each start"
        log.error(what, folder, error)
    _NOT_KEPT.add(folder)


def _name(network: Network, model: Model) -> str:
    code = [Path(__file__).with_name(f"{name}.py") for name in ("openvino_compute", "networks", "loading")]
    sources = [*code, model.files[network.file]]
    if model.base:
        sources.append(model.base.files[model.base_network(network).file])
    with_what = f"{openvino.__version__} {model.strength}".encode()
    made_of = hashlib.sha256(with_what + b"".join(source.read_bytes() for source in sources))
    return made_of.hexdigest()[:32]


def _keep(graph: Any, folder: Path) -> None:
    """Write a converted network into a folder, atomically. Raises OSError or RuntimeError."""
    with being_made(folder) as whole:
        save(graph, whole)


@contextmanager
def being_made(folder: Path) -> Iterator[Path]:
    """Give a path at which the block makes a folder. It becomes `folder` at the end, at once. Raises OSError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        yield Path(made, "whole")
        try:
            Path(made, "whole").rename(folder)
        except OSError:
            if not intact(folder):  # else another worker has made it already
                raise


def save(graph: Any, folder: Path) -> None:
    """Write a converted network and its digest into a folder. Raises OSError or RuntimeError."""
    openvino.save_model(graph, f"{folder}/graph.xml", compress_to_fp16=False)
    (folder / "sha256").write_text(_digest(folder))


def intact(folder: Path) -> bool:
    """Return whether a cached network has its digest; then mark it as used."""
    try:
        fine = (folder / "sha256").read_text() == _digest(folder)
    except OSError:
        return False
    mark_used(folder)
    return fine


def _digest(folder: Path) -> str:
    """Return the SHA-256 of both files of a graph, in hexadecimal."""
    return hashlib.sha256(b"".join((folder / f"graph.{kind}").read_bytes() for kind in ("xml", "bin"))).hexdigest()
