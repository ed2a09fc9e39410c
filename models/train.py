"""Trains the bundled network `faithful` with a pixel loss.

    python -m upres.models.train --photos FOLDER --pairs FOLDER --out FOLDER --version 2 --factors 4,2 --seconds 900,600

The first factor starts from random weights, or from --start; each further one starts from the trunk of the one before.
Writes a version for the registry. Its manifest contains the PSNR on the pairs (folders Set5_x4, Set5_x2, …).
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upres.core.errors import ModelError
from upres.models import folder, pairs, training
from upres.models.folder import NewNetwork
from upres.models.photos import Photos
from upres.models.training import Average
from upres.worker.engine.networks import EDSR
from upres.worker.model import open_folder

WIDTH, DEPTH = 64, 16
RATE = 6e-4
REPORT_SECONDS = 30


def main() -> int:
    """Run the training; returns 1 after printing an error."""
    options = _options()
    tensors: dict[str, Tensor] = {}
    try:
        photos = Photos.load(options.photos, training.device())
        if options.start:
            tensors = dict(_tensors(options.start))
        made = []
        for factor, seconds in zip(options.factors, options.seconds, strict=True):
            network = train(photos, factor, seconds, tensors, options)
            tensors = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
            made.append(_made(network, factor, tensors, options.pairs))
        about = {"name": "faithful", "version": options.version, "licence": "MIT", "description": DESCRIPTION}
        print(f"{folder.write(options.out, about, made)} is in {options.out}")
    except ModelError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


DESCRIPTION = "Enlarges what is there and invents nothing: EDSR-baseline trained on pixels."


def train(photos: Photos, factor: int, seconds: float, tensors: dict[str, Tensor], options: argparse.Namespace) -> EDSR:
    """Train a network for `seconds`; returns its averaged weights. Prints loss and PSNR every REPORT_SECONDS."""
    on = photos.pixels.device
    network = EDSR(factor, WIDTH, DEPTH)
    training.initialise(network)
    training.copy_matching(network, tensors)
    network = training.place(network, on)
    average, forward = Average(network), training.compiled(network, on)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.9, 0.99), fused=on.type == "cuda")
    last_report, count = time.monotonic(), 0
    for done in training.steps(optimiser, RATE, seconds):
        small, large = photos.pairs(options.batch, options.patch, factor)
        with training.bfloat16(on):
            made = forward(small)
        loss = training.charbonnier(made.float(), large)
        training.optimiser_step(loss, optimiser)
        average.follow(network)
        count += 1
        if time.monotonic() - last_report > REPORT_SECONDS:
            last_report = time.monotonic()
            print(f"x{factor} {done:4.0%} step {count} loss {loss.item():.5f} {_found(average, factor, options.pairs)}")
    print(f"x{factor} done, {count} steps, {_found(average, factor, options.pairs)}", flush=True)
    network.load_state_dict(average.network.state_dict())
    return network.eval()


def _found(average: Average, factor: int, where: Path) -> str:
    return ", ".join(f"{name} {value:.3f} dB" for name, value in _quality(average.network, factor, where).items())


def _quality(network: Any, factor: int, where: Path) -> dict[str, float]:
    """PSNR in dB on each benchmark set for the factor, by the name of the set."""
    upscale = partial(training.upscale, network)
    sets = sorted(path for path in where.glob(f"*_x{factor}") if path.is_dir())
    return {
        f"{one.name.rpartition('_')[0].lower()}_psnr_db": round(pairs.mean(lambda p, f: upscale(p), one, factor)[0], 3)
        for one in sets
    }


def _made(network: EDSR, factor: int, tensors: dict[str, Tensor], where: Path) -> NewNetwork:
    fields = {
        "architecture": "edsr",
        "parameters": {"width": WIDTH, "depth": DEPTH},
        "factor": factor,
        "receptive_radius": 2 * DEPTH + 3,
        "quality": _quality(network, factor, where),
    }
    return NewNetwork(fields, tensors)


def _tensors(start: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    model = open_folder(start)
    return load_file(model.files[model.manifest.networks[0].file])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m upres.models.train", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True, help="folder with benchmark sets, such as Set5_x4")
    parser.add_argument("--start", type=Path, help="folder of a version to start from")
    parser.add_argument("--batch", type=int, default=64, help="patches per step")
    return training.parse(parser)


if __name__ == "__main__":
    sys.exit(main())
