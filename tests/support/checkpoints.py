"""Checkpoints of other projects, with random weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

ABOUT = {"name": "theirs", "version": "1", "licence": "MIT", "description": "A test."}


def calm(module: nn.Module, deviation: float = 0.02) -> dict[str, torch.Tensor]:
    """Set small random weights, so that the output of a deep network stays near grey, and return them."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, deviation)
    return module.state_dict()


def saved(tensors: Any, path: Path) -> Path:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path
