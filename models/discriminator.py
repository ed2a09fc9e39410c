"""The discriminator for distillation: a small U-Net with one output per pixel (Schönfeld et al. 2020)."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm


class Verdict(NamedTuple):
    """Logits per pixel, (count, 1, height, width), positive for the teacher's; and the features of the encoder."""

    logits: Tensor
    features: list[Tensor]


class Discriminator(nn.Module):
    """U-Net with spectral normalisation (Miyato et al. 2018, arXiv 1802.05957); input sides must be multiples of 8."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(widths))
        upward = widths[::-1]
        self.up = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 3, padding=1)) for a, b in pairwise(upward))
        self.last = nn.Sequential(
            spectral_norm(nn.Conv2d(width, width, 3, padding=1)), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, image: Tensor) -> Verdict:
        """(count, 3, height, width) → Verdict."""
        features = [functional.leaky_relu(self.first(image), 0.2)]
        for layer in self.down:
            features.append(functional.leaky_relu(layer(features[-1]), 0.2))
        state = features[-1]
        for layer, beside in zip(self.up, features[-2::-1], strict=True):
            larger = functional.interpolate(state, scale_factor=2.0, mode="bilinear")
            state = functional.leaky_relu(layer(larger), 0.2) + beside
        return Verdict(self.last(state), features)


def feature_matching_loss(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Feature matching loss: the mean L1 distance over layers (Wang et al. 2018, arXiv 1711.11585)."""
    differences = [functional.l1_loss(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
    return torch.stack(differences).mean()
