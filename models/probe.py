"""Measures the receptive field of a network, and the halo: the part of it that changes the result visibly."""

import math

import torch

from upres.models.folder import photo
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork

SIDE = 257
"""Side in pixels of the probed image: a radius of up to 127 pixels can be measured."""
HALOS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Candidate halos, in input pixels."""
WINDOW = 96
"""Side in input pixels of the core of the windows that are compared."""


@torch.inference_mode()
def receptive_radius(network: SuperResolutionNetwork, side: int = SIDE) -> int | None:
    """Radius in input pixels of the receptive field; None when it reaches the border of the probed image.

    One input pixel is NaN (IEEE 754). Everything computed from it is NaN as well, independent of the weights.
    """
    image = torch.full((1, 3, side, side), 0.5)
    middle = side // 2
    image[:, :, middle, middle] = math.nan
    touched = network(image)[0].isnan().any(0).nonzero() // network.factor
    radius = int((touched - middle).abs().max())
    return None if radius >= middle else radius


@torch.inference_mode()
def halo(network: SuperResolutionNetwork, most: int) -> int:
    """The smallest halo, of HALOS and `most`, with which the core of a window differs by at most one grey level.

    The reference is the same network with a halo of `most`, at most 128 pixels. The image is a photo continued by
    reflection.
    """
    bytes_network = ByteNetwork(network)
    widest = min(most, HALOS[-1])
    side = 2 * widest + WINDOW
    picture = torch.from_numpy(photo(side, side)[None])
    expected = _core(bytes_network, picture, widest, widest)
    for one in HALOS:
        if one >= widest:
            break
        if int((_core(bytes_network, picture, widest, one) - expected).abs().max()) <= 1:
            return one
    return widest


def _core(network: ByteNetwork, picture: torch.Tensor, at: int, halo: int) -> torch.Tensor:
    """The enlarged core of the window at (at, at), computed with `halo` pixels around it; int16."""
    window = picture[:, at - halo : at + WINDOW + halo, at - halo : at + WINDOW + halo]
    factor = network.network.factor
    inner = slice(halo * factor, (halo + WINDOW) * factor)
    made: torch.Tensor = network(window)
    return made[:, inner, inner].to(torch.int16)
