"""The networks that models are made of, as torch modules."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.manifest import Network


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


def build(network: Network) -> EDSR:
    """An untrained module for a manifest's network, on no device yet (`meta`)."""
    architectures = {"edsr": EDSR}
    with torch.device("meta"):
        return architectures[network.architecture](network.factor, network.width, network.depth)
