"""The networks that models are made of, as torch modules."""

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from core.errors import ModelError
from core.manifest import Network
from worker.registry import Model


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, plus the input; no normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, width, height, width) → the same shape."""
        change: Tensor = self.conv2(functional.relu(self.conv1(features)))
        return features + change


class EDSR(nn.Module):
    """EDSR-baseline (Lim et al. 2017, arXiv 1707.02921) with one pixel shuffle and a nearest-neighbour skip.

    Input (batch, 3, height, width), RGB in [0, 1]; output (batch, 3, height·factor, width·factor),
    not clamped. Receptive radius: depth · 2 + 3 input pixels.
    """

    def __init__(self, factor: int, width: int, depth: int) -> None:
        super().__init__()
        self.factor = factor
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.blend = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3 * factor * factor, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, 3, height·factor, width·factor)."""
        base = functional.interpolate(image, scale_factor=float(self.factor), mode="nearest")
        return self.detail(image).to(image.dtype) + base

    def detail(self, image: Tensor) -> Tensor:
        """What is added to the nearest-neighbour enlargement, in the precision of the weights."""
        features = self.head(image.to(self.head.weight.dtype))
        return functional.pixel_shuffle(self.tail(features + self.blend(self.blocks(features))), self.factor)


class ByteNetwork(nn.Module):
    """A network between bytes: (count, height, width, 3) uint8 → the same, enlarged.

    Only what the network adds is computed in its precision, and rounded to grey levels; the pixels it
    is added to are whole numbers already. So half precision costs thousandths of a decibel.
    """

    def __init__(self, network: EDSR) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        """RGB in [0, 255] → RGB in [0, 255]."""
        count, height, width, channels = windows.shape
        factor = self.network.factor
        image = windows.permute(0, 3, 1, 2).float() / 255
        detail = (self.network.detail(image).float() * 255).round().to(torch.int32).permute(0, 2, 3, 1)
        repeated = windows[:, :, None, :, None].expand(count, height, factor, width, factor, channels)
        base = repeated.reshape(count, height * factor, width * factor, channels).to(torch.int32)
        return (base + detail).clamp(0, 255).to(torch.uint8)


def build(network: Network) -> EDSR:
    """An untrained module for a manifest's network, on no device yet (`meta`)."""
    architectures = {"edsr": EDSR}
    with torch.device("meta"):
        return architectures[network.architecture](network.factor, network.width, network.depth)


def load(network: Network, model: Model) -> EDSR:
    """A network with its weights, in float32 on the host. Raises ModelError when they do not fit."""
    module = build(network)
    try:
        module.load_state_dict(load_file(model.weights[network.factor]), strict=True, assign=True)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{network.file} does not fit its manifest: {error}") from error
    module.requires_grad_(False).eval()
    return module
