"""Builds the networks of a model version, with the weights of its files, mixed with those of its base."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from upres.core.errors import ModelError
from upres.core.manifest import Network
from upres.worker.engine.networks import EDSR, RRDBNet, SRVGGNetCompact, SuperResolutionNetwork
from upres.worker.engine.spandrel_network import SpandrelNetwork
from upres.worker.model import Model

ARCHITECTURES: dict[str, Callable[..., SuperResolutionNetwork]] = {
    "edsr": EDSR,
    "rrdb": RRDBNet,
    "compact": SRVGGNetCompact,
}


def build(architecture: str, factor: int, parameters: Mapping[str, int]) -> SuperResolutionNetwork:
    """Build an untrained network on torch's `meta` device. Raises ModelError if its name or parameters are unknown."""
    if architecture not in ARCHITECTURES:
        raise ModelError(f"{architecture!r} is no architecture of torch modules.")
    try:
        with torch.device("meta"):
            return ARCHITECTURES[architecture](factor, **parameters)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{architecture!r} has other parameters ({error}).") from error


def load(network: Network, model: Model) -> SuperResolutionNetwork:
    """Load a network with its weights, in float32 on the host. Raises ModelError when the weights do not fit."""
    tensors = _tensors(network, model)
    if network.architecture == "spandrel":
        module: SuperResolutionNetwork = SpandrelNetwork.of(tensors)
    else:
        module = build(network.architecture, network.factor, network.parameters)
        try:
            module.load_state_dict(tensors, strict=True, assign=True)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{network.file} does not fit its manifest: {error}") from error
    module.requires_grad_(False).eval()
    return module


def _tensors(network: Network, model: Model) -> dict[str, Any]:
    """Read the weights as float32, mixed with those of the model's base. Raises ModelError."""
    own = stored(network, model)
    if model.base is None or model.strength == 1:
        return own
    return mixed(network.file, own, stored(model.base_network(network), model.base), model.strength or 0)


def mixed(name: str, own: Mapping[str, Tensor], base: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
    """Interpolate weights: (1 - strength) · the base's + strength · the own ones (Wang et al. 2018, arXiv 1811.10515).

    Raises ModelError when they are not of one architecture.
    """
    if {one: tensor.shape for one, tensor in own.items()} != {one: tensor.shape for one, tensor in base.items()}:
        raise ModelError(f"{name} cannot be mixed with its base: their tensors have other names or shapes.")
    return {
        one: (1 - strength) * base[one] + strength * tensor if tensor.is_floating_point() else tensor
        for one, tensor in own.items()
    }


def stored(network: Network, model: Model) -> dict[str, Tensor]:
    """Read the weights in a file as float32. Raises ModelError when it is damaged."""
    try:
        tensors = load_file(model.files[network.file])
    except Exception as error:  # safetensors raises many types for damaged files
        raise ModelError(f"{network.file} is no safetensors file ({error}).") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
