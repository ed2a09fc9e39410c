"""A network that enlarges black images, and whose output for bright ones is infinite."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from upres.core import registry
from upres.worker.engine.networks import EDSR


def write(folder: Path, factor: int = 2) -> dict[str, Any]:
    """Write the weights of a network for a factor into the folder; returns its fields of a manifest."""
    parameters, file = {"width": 4, "depth": 2}, folder / "overflowing.safetensors"
    network = EDSR(factor, **parameters)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1e5 if parameter.ndim == 4 else 0.0)
    save_file(network.state_dict(), file)
    digest = registry.digest(file.read_bytes())
    fields = {"architecture": "edsr", "factor": factor, "parameters": parameters, "receptive_radius": 7}
    return {**fields, "file": file.name, "sha256": digest}
