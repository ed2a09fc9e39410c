"""Small models with factor 1, made from checkpoints as `upres models import` does."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from upres.models import community
from upres.worker.engine.networks import SRVGGNetCompact
from upres.worker.model import Model


def blur(share: float = 1.0) -> dict[str, torch.Tensor]:
    """The weights of a network that replaces this share of each pixel by the mean of the 3 × 3 pixels around it."""
    tensors = {name: torch.zeros_like(one) for name, one in SRVGGNetCompact(1, width=3, depth=0).state_dict().items()}
    kernel = torch.full((3, 3), share / 9)
    kernel[1, 1] -= share  # the network adds its output to the image
    for channel in range(3):
        tensors["body.0.weight"][channel, channel, 1, 1] = 1
        tensors["body.2.weight"][channel, channel] = kernel
    return tensors


def imported(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> Model:
    """Convert a checkpoint to version 1 of a model in `folder / name`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")
    about = {"name": name, "version": "1", "licence": "MIT", "description": "A test."}
    return community.convert(folder / f"{name}.safetensors", folder / name, about)
