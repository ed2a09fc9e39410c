"""Measures networks: the receptive field; the halo, which is the part of it that changes the result visibly; grids."""

import math

import torch

from upres.core.errors import ModelError
from upres.models.folder import photo
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork

SIDE = 257
"""Side in pixels of the probed image: a radius of up to 127 pixels can be measured."""
HALOS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Candidate halos, in input pixels."""
WINDOW = 96
"""Side in input pixels of the core of the windows that are compared."""
ALIGNMENTS = (1, 2, 4, 6, 7, 8, 12, 16, 24, 32, 48, 64)
"""Candidate alignments, in input pixels."""
CONTEXT, COMPARED = 40, 32
"""Pixels around the squares that are compared to find the alignment, and the side of these, in input pixels."""
LARGEST_OUTPUT = 16.0
"""Limit of the network's output for a photo; 1.0 is white. Trained networks stay below 2."""


@torch.inference_mode()
def check_output(network: SuperResolutionNetwork, name: str) -> None:
    """Enlarge a photo. Raises ModelError when a number of the output is not finite, or larger than LARGEST_OUTPUT."""
    largest = float(ByteNetwork(network).detail(torch.from_numpy(photo(64, 64)[None])).abs().max())
    if not largest <= LARGEST_OUTPUT:
        raise ModelError(
            f"{name}: the network's output for a photo is no image (it reaches {largest:g}, and 1 is white); the "
            "checkpoint is damaged, or its training failed. Take another one."
        )


@torch.inference_mode()
def alignment(network: SuperResolutionNetwork, multiple_of: int) -> int:
    """The number of pixels by which the image may be shifted so that only the place of the result changes.

    It is the smallest of ALIGNMENTS that is a multiple of `multiple_of` and changes the result hardly more than the
    best of them: networks with operations on the whole image change a little with each shift.
    """
    candidates = sorted({one for one in ALIGNMENTS if one % multiple_of == 0} | {multiple_of})
    at, side, factor = CONTEXT + candidates[-1], 2 * CONTEXT + candidates[-1] + COMPARED, network.factor
    picture = torch.from_numpy(photo(side + candidates[-1], side + candidates[-1])).permute(2, 0, 1)[None] / 255

    def core(shift: int) -> torch.Tensor:
        same = slice((at - shift) * factor, (at - shift + COMPARED) * factor)
        made: torch.Tensor = network(picture[..., shift : shift + side, shift : shift + side])
        return made[..., same, same]

    reference = core(0)
    changes: dict[int, float] = {}
    for shift in candidates:
        changes[shift] = float((core(shift) - reference).abs().max())
        if changes[shift] <= 0.25 / 255:
            return shift
    return next(shift for shift in candidates if changes[shift] <= 2 * min(changes.values()))


@torch.inference_mode()
def receptive_radius(network: SuperResolutionNetwork, alignment: int = 1, side: int = SIDE) -> int | None:
    """Radius in input pixels of the receptive field; None when it reaches the border of the probed image.

    One input pixel is NaN (IEEE 754). Everything computed from it is NaN as well, independent of the weights. With an
    alignment, other pixels may reach as much further as their place in the network's squares differs.
    """
    image = torch.full((1, 3, side, side), 0.5)
    middle = side // 2
    image[:, :, middle, middle] = math.nan
    touched = network(image)[0].isnan().any(0).nonzero() // network.factor
    radius = int((touched - middle).abs().max())
    return None if radius >= middle else radius + alignment - 1


@torch.inference_mode()
def halo(network: SuperResolutionNetwork, most: int, alignment: int = 1) -> int:
    """The smallest halo, of HALOS and `most`, with which the core of a window differs by at most one grey level.

    With an alignment, halos are rounded up to multiples of it, as those of tiles are.

    The reference is the same network with a halo of `most`, at most 128 pixels. The image is a photo continued by
    reflection.
    """
    bytes_network = ByteNetwork(network)
    widest = _rounded(min(most, HALOS[-1]), alignment)
    side = 2 * widest + WINDOW
    picture = torch.from_numpy(photo(side, side)[None])
    expected = _core(bytes_network, picture, widest, widest)
    for one in sorted({_rounded(one, alignment) for one in HALOS}):
        if one >= widest:
            break
        if int((_core(bytes_network, picture, widest, one) - expected).abs().max()) <= 1:
            return one
    return most if most <= HALOS[-1] else HALOS[-1]


def _rounded(halo: int, alignment: int) -> int:
    return -(-halo // alignment) * alignment


def _core(network: ByteNetwork, picture: torch.Tensor, at: int, halo: int) -> torch.Tensor:
    """The enlarged core of the window at (at, at), computed with `halo` pixels around it; int16."""
    window = picture[:, at - halo : at + WINDOW + halo, at - halo : at + WINDOW + halo]
    factor = network.network.factor
    inner = slice(halo * factor, (halo + WINDOW) * factor)
    made: torch.Tensor = network(window)
    return made[:, inner, inner].to(torch.int16)
