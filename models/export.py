"""Exports models to ONNX, TorchScript, ExportedProgram and SavedModel; checks each export against torch.

All exports take and return bytes, with scaling and rounding in the graph. Input `image`: uint8, (count, height, width,
3), RGB. Outputs: `enlarged`, uint8, (count, height·factor, width·factor, 3), and `exact`, the same before rounding,
float32 in [0, 1].
"""

import logging
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from upres.core.errors import ModelError
from upres.core.manifest import GRAPH_INPUT, GRAPH_OUTPUT
from upres.models import folder
from upres.models.folder import photo
from upres.worker.engine.loading import load
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork
from upres.worker.golden import psnr
from upres.worker.model import Model

Pixels = npt.NDArray[np.uint8]
Outputs = tuple[Pixels, npt.NDArray[np.float32]]
Run = Callable[[Pixels], Outputs]

EXACT = "exact"
MAX_DIFFERENCE = 1e-4
"""Largest accepted absolute difference of `exact` between an export and torch."""
MAX_DECIBELS = 0.001
"""Largest accepted difference of PSNR, in dB; see Checked."""
SIZES = ((1, 32, 32), (1, 47, 61), (3, 64, 40))
"""Count, height and width of the inputs that each export is checked with. None is the size used for tracing."""
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt", "exported-program": ".pt2", "savedmodel": ""}
NEEDED = "models/requirements-savedmodel.txt"


class Portable(nn.Module):
    """The module that is exported: a network with scaling and rounding, from bytes to bytes."""

    def __init__(self, network: SuperResolutionNetwork) -> None:
        super().__init__()
        self.bytes = ByteNetwork(network)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `image` → (`enlarged`, `exact`); shapes are in the docstring of the module."""
        detail = self.bytes.detail(image)
        return self.bytes.rounded(image, detail), self.bytes.exact(image, detail)


class Checked(NamedTuple):
    """The difference between an export and torch: the largest over all SIZES."""

    most_difference: float
    """Absolute difference of `exact`."""
    most_decibels: float
    """Difference of the PSNR in dB, each measured between `enlarged` and the nearest-neighbour enlargement."""

    def __str__(self) -> str:
        return (
            f"within {self.most_difference:.1e} of torch, PSNR within {self.most_decibels:.4f} dB, {len(SIZES)} sizes"
        )


def export(model: Model, form: str, to: Path, python: Path = Path("python")) -> list[tuple[str, Checked]]:
    """Export all networks of a model in one of FORMS or "savedmodel". Returns (file name, differences) of each.

    For ONNX the folder becomes a version that contains the graphs as well, for workers without torch; of a version with
    a base it has the own weights, and workers mix them with the base's graphs. `python` is a Python with TensorFlow,
    used only for SavedModel. Raises ModelError when a network cannot be exported, or when the export computes something
    different.
    """
    to.mkdir(parents=True, exist_ok=True)
    if model.base and form == "onnx":
        model = model.at(1)
    made = []
    for network in model.manifest.networks:
        path = to / f"{model.manifest.name}-x{network.factor}{SUFFIXES[form]}"
        made.append(
            (path.name, export_network(Portable(load(network, model)).eval(), network.factor, form, path, python))
        )
    if form == "onnx":
        both = [
            {**network.model_dump(), "graph": folder.described(to / name)}
            for (name, _), network in zip(made, model.manifest.networks, strict=True)
        ]
        folder.derive(model, to, f"{model.manifest.version}-onnx", both)
    return made


def export_network(module: Portable, factor: int, form: str, path: Path, python: Path = Path("python")) -> Checked:
    """Export one network in one of the formats in SUFFIXES, and check it. Raises ModelError as `export`."""
    writers: dict[str, Callable[[Portable, Path], Run]] = {**FORMS, "savedmodel": partial(_savedmodel, python)}
    with quiet():
        try:
            found = compare(module, factor, writers[form](module, path))
        except ImportError as error:
            raise ModelError(f'This form needs more: pip install "upres[onnx]" ({error}).') from error
    if not (found.most_difference <= MAX_DIFFERENCE and found.most_decibels <= MAX_DECIBELS):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise ModelError(f"{path.name} does not compute what torch does: {found}.")
    return found


def compare(module: Portable, factor: int, run: Run) -> Checked:
    """Compare an export with torch in float32. Raises ModelError when the shape or type of its output is wrong."""
    differences, decibels = [], []
    for count, height, width in SIZES:
        pixels = np.stack([photo(height, width, shift) for shift in range(count)])
        with torch.inference_mode():
            expected, exact = (tensor.numpy() for tensor in module(torch.from_numpy(pixels)))
        found, found_exact = run(pixels)
        if found.shape != expected.shape or found.dtype != np.uint8:
            raise ModelError(f"It makes {found.shape} {found.dtype} where torch makes {expected.shape} uint8.")
        reference = pixels.repeat(factor, 1).repeat(factor, 2)
        differences.append(float(np.abs(found_exact - exact).max()))
        decibels.append(abs(psnr(found, reference) - psnr(expected, reference)))
    return Checked(max(differences), max(decibels))


def _onnx(module: Portable, path: Path) -> Run:
    torch.onnx.export(
        module,
        _example(),
        path,
        input_names=[GRAPH_INPUT],
        output_names=[GRAPH_OUTPUT, EXACT],
        dynamo=True,
        dynamic_shapes=_dynamic(),
        external_data=False,
        verbose=False,
    )
    strip(path)
    return run_onnx(path)


def strip(path: Path) -> None:
    """Remove the exporter's metadata from a graph: it contains source paths of the machine that exported it."""
    import onnx

    model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    onnx.save(model, path)


def run_onnx(path: Path) -> Run:
    """Load an ONNX graph into ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(pixels: Pixels) -> Outputs:
        enlarged, exact = session.run([GRAPH_OUTPUT, EXACT], {GRAPH_INPUT: pixels})
        return enlarged, exact

    return run


def _torchscript(module: Portable, path: Path) -> Run:
    jit: Any = torch.jit  # it has no type annotations
    jit.trace(module, _example()).save(path)
    return _by_torch(jit.load(path))


def _program(module: Portable, path: Path) -> Run:
    program = torch.export.export(module, _example(), dynamic_shapes=_dynamic())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains source paths, see strip
    torch.export.save(program, path)
    return _by_torch(torch.export.load(path).module())


def _savedmodel(python: Path, module: Portable, path: Path) -> Run:
    """Convert by way of ONNX, in the environment of another Python: TensorFlow requires another version of numpy."""
    graph = path.with_suffix(".onnx")
    _onnx(module, graph)
    _other(python, "convert", graph, path)
    graph.unlink()
    for lite in path.glob("*.tflite"):  # a by-product of onnx2tf that does not work with uint8 inputs
        lite.unlink()

    def run(pixels: Pixels) -> Outputs:
        with tempfile.TemporaryDirectory() as temporary:
            images, results = Path(temporary, "images.npz"), Path(temporary, "results.npz")
            np.savez(images, x=pixels)
            _other(python, "run", path, images, results)
            made = np.load(results)
            return made[f"x.{GRAPH_OUTPUT}"], made[f"x.{EXACT}"]

    return run


def _other(python: Path, *arguments: str | Path) -> None:
    script = Path(__file__).with_name("savedmodel.py")
    done = subprocess.run([python, script, *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise ModelError(f"{python} cannot {arguments[0]} a SavedModel; has it {NEEDED}? ({last})")


def _by_torch(loaded: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Run:
    def run(pixels: Pixels) -> Outputs:
        with torch.inference_mode():
            enlarged, exact = loaded(torch.from_numpy(pixels))
        return enlarged.numpy(), exact.numpy()

    return run


def _example() -> tuple[Tensor]:
    return (torch.zeros(2, 24, 28, 3, dtype=torch.uint8),)


def _dynamic() -> tuple[dict[int, object]]:
    count, height, width = (torch.export.Dim(name, min=1) for name in ("count", "height", "width"))
    return ({0: count, 1: height, 2: width},)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of exporters; the comparison with torch finds what matters."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


FORMS: dict[str, Callable[[Portable, Path], Run]] = {
    "onnx": _onnx, "torchscript": _torchscript, "exported-program": _program,
}  # fmt: skip
