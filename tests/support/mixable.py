"""Two small models of one architecture: `plain`, and `strong` with `plain` as its base."""

from pathlib import Path

import torch

from upres.models import folder
from upres.models.folder import NewNetwork
from upres.worker.engine.networks import EDSR
from upres.worker.model import Model

WIDTH, DEPTH = 8, 1
DEFAULT = 0.4
"""Default strength of `strong`."""


def weights(factor: int, seed: int) -> dict[str, torch.Tensor]:
    """Weights of a network that changes the nearest-neighbour enlargement a little, in another way for each seed."""
    torch.manual_seed(seed)
    network = EDSR(factor, WIDTH, DEPTH)
    return {name: tensor.detach() * 0.6 for name, tensor in network.state_dict().items()}


def write(to: Path, name: str, seed: int, base: Model | None = None, default: float = DEFAULT) -> Model:
    """Write version 1 of a model with factors 2 and 4 into the folder `to / name / 1`."""
    about = {"name": name, "version": "1", "licence": "MIT", "description": "A test."}
    mix = {}
    if base:
        manifest = base.manifest
        mix = {"mix": {"model": manifest.name, "version": manifest.version, "digest": base.digest, "strength": default}}
    return folder.write(to / name / "1", {**about, **mix}, [new_network(factor, seed) for factor in (2, 4)])


def new_network(factor: int, seed: int) -> NewNetwork:
    """A network with these weights, and its fields in a manifest."""
    size = {"width": WIDTH, "depth": DEPTH}
    fields = {"architecture": "edsr", "parameters": size, "factor": factor, "receptive_radius": 2 * DEPTH + 3}
    return NewNetwork(fields, weights(factor, seed))


def pair(to: Path, names: tuple[str, str] = ("plain", "strong")) -> tuple[Model, Model]:
    """Write both into a folder laid out as the registry."""
    base = write(to, names[0], 1)
    return base, write(to, names[1], 2, base)
