"""`python -m upres.worker.engine.trial_process FOLDER PARENT`: tries whether OpenVINO can run one community network.

Reads a pickled model with one network from its parent, the worker with the process id PARENT. Writes the converted
network into FOLDER, and prints {"reason": why it must not be used, or null}.
"""

import json
import logging
import os
import pickle
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from upres.core.errors import OutputNotFinite
from upres.core.manifest import Sides
from upres.worker.engine import own_process
from upres.worker.engine.compute import Compute
from upres.worker.engine.openvino_compute import OpenVinoCompute, converted, save
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model

Pixels = npt.NDArray[np.uint8]

EXAMPLE = (45, 51)
"""Height and width of the window with which a network is traced, before its `sides` are applied. They are odd, so that
networks which pad their input themselves do it, and the graph has that step."""
SHAPES = ((2, 64, 40), (1, 41, 87), (1, 130, 33), (1, 1, 7))
"""Count, height and width of the windows that are compared: none is the example."""
TIMED = (1, 96, 96)
"""Count, height and width of the windows that are compared and then timed: those of the golden image."""
RUNS = 2
"""Runs of each that are timed, in turns; the faster one counts."""
MOST_LEVELS = 1
"""Largest difference from torch in grey levels."""
MOST_DIFFERENT = 0.01
"""Largest share of samples that may differ by one level. Rounding makes one of 10,000; more are another computation,
which other images may show by more levels."""


def refusal(model: Model, folder: Path) -> str | None:
    """Convert the only network of a model into a folder; return why it must not be used, or None."""
    [network] = model.manifest.networks
    expected = TorchCompute(model, "cpu", "float32")
    try:
        save(converted(network, model, *_example(network.sides)), folder)
        found = OpenVinoCompute(model, tried={network.factor: folder / "graph.xml"})
    except OSError:
        raise
    except Exception as error:  # OpenVINO's and torch's, of many types, for modules that they cannot convert
        return f"the conversion failed ({_first_line(error)})"
    for shape in (*SHAPES, TIMED):
        if reason := _difference(network.factor, windows(*shape), expected, found):
            return reason
    in_turns = [[_seconds(network.factor, windows(*TIMED), one) for one in (expected, found)] for _ in range(RUNS)]
    in_torch, in_openvino = (min(took) for took in zip(*in_turns, strict=True))
    if in_openvino >= in_torch:
        return f"it takes {in_openvino / in_torch:.1f} times the processor time of torch"
    return None


def windows(count: int, height: int, width: int) -> list[Pixels]:
    """Make windows, (height, width, 3) each: patches of one colour with sharp edges, and noise."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 256, (count, height // 8 + 1, width // 8 + 1, 3))
    made = patches.repeat(8, 1).repeat(8, 2)[:, :height, :width] + random.normal(0, 8, (count, height, width, 3))
    return list(made.clip(0, 255).astype(np.uint8))


def _example(sides: Sides) -> tuple[int, int]:
    """Return the height and width of the example, which the network accepts without padding."""
    height, width = (-(-max(one, sides.smallest) // sides.multiple_of) * sides.multiple_of for one in EXAMPLE)
    return (width, width) if sides.square else (height, width)


def _difference(factor: int, batch: list[Pixels], expected: Compute, found: Compute) -> str | None:
    """Compare both on a batch; return what is wrong with the result of `found`, or None."""
    height, width = batch[0].shape[:2]
    shape = f"{len(batch)} × {height} × {width} pixels"
    try:
        wanted = expected.start(factor, batch)().astype(int)
    except OutputNotFinite:
        return f"the network's output for {shape} is not finite"
    try:
        made = found.start(factor, batch)()
    except Exception as error:  # OpenVINO's, for a size that differs from the example's
        return f"it cannot run {shape} ({_first_line(error)})"
    if made.shape != wanted.shape:
        return f"the result for {shape} has another size"
    off = np.abs(made - wanted)
    if off.max() > MOST_LEVELS:
        return f"the result for {shape} is {off.max()} grey levels off"
    share = float((off > 0).mean())
    return f"{share:.1%} of the result for {shape} differ" if share > MOST_DIFFERENT else None


def _seconds(factor: int, batch: list[Pixels], compute: Compute) -> float:
    """Return the processor time of a batch: unlike the time on the clock it hardly depends on what else runs here."""
    begin = time.process_time()
    compute.start(factor, batch)()
    return time.process_time() - begin


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def main() -> int:
    """Try the network that stands on the standard input."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    own_process.confine(parent)
    os.nice(10)  # jobs have precedence
    warnings.simplefilter("ignore")  # of torch's tracing, about steps that become constant: they are what is tried
    logging.disable()
    model = pickle.load(sys.stdin.buffer)  # noqa: S301  # the parent wrote it
    print(json.dumps({"reason": refusal(model, folder)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
