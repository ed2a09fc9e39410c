"""How far a network sees, and how much of that matters: found out by trying."""

import math

import torch

from upres.models.folder import photo
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork

SIDE = 257
"""Of the image that is probed: a radius of 128 pixels can be found."""
HALOS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
WINDOW = 96
"""Core of the windows that are compared, in pixels."""


@torch.inference_mode()
def receptive_radius(network: SuperResolutionNetwork, side: int = SIDE) -> int | None:
    """Input pixels around a pixel that its output depends on; None when that is the whole image, or nearly.

    One pixel is not a number (NaN, IEEE 754), and whatever is computed from it is none either: whatever the weights.
    """
    image = torch.full((1, 3, side, side), 0.5)
    middle = side // 2
    image[:, :, middle, middle] = math.nan
    touched = network(image)[0].isnan().any(0).nonzero() // network.factor
    radius = int((touched - middle).abs().max())
    return None if radius >= middle else radius


@torch.inference_mode()
def halo(network: SuperResolutionNetwork, most: int) -> int:
    """The fewest pixels around a window, of HALOS and `most`, with which all of its core is within a grey level.

    Compared with the same network seeing `most` or 128 pixels, on a photo that is repeated with its mirror image.
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
    """What the network makes of the window at (at, at), seeing so many pixels around it."""
    window = picture[:, at - halo : at + WINDOW + halo, at - halo : at + WINDOW + halo]
    factor = network.network.factor
    inner = slice(halo * factor, (halo + WINDOW) * factor)
    made: torch.Tensor = network(window)
    return made[:, inner, inner].to(torch.int16)
