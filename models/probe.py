"""Measures networks: the receptive field; the halo, which is the part of it that changes the result visibly; grids."""

import copy
import math
from contextlib import suppress

import torch

from upres.core.errors import ModelError
from upres.models.folder import noisy, photo
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork

SIDE = 257
"""Side in pixels of the probed image: a radius of up to 127 pixels can be measured."""
HALOS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Candidate halos, in input pixels."""
WINDOW = 96
"""Side in input pixels of the core of the windows that are compared."""
ALIGNMENTS = (1, 2, 4, 6, 7, 8, 12, 16, 24, 32, 48, 64)
"""Candidate alignments, in input pixels."""
CONTEXT, COMPARED = 40, 72
"""To find the alignment: pixels beside the cut that are not compared, and pixels beside the other edge that are."""
LEAST_PSNR_DB = 45.0
"""Least PSNR in dB between results in half precision and in float32: that of golden images (core/manifest.py)."""
LARGEST_OUTPUT = 16.0
"""Limit of the network's output for a photo; 1.0 is white. Trained networks stay below 2."""


@torch.inference_mode()
def check_output(network: SuperResolutionNetwork, name: str) -> None:
    """Enlarge a photo. Raises ModelError when that fails, or a number of the output is above LARGEST_OUTPUT or NaN."""
    try:
        largest = float(ByteNetwork(network).detail(_picture(network, 64)).abs().max())
    except Exception as error:  # foreign code, for an image whose sides it should accept
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{name}: the network cannot be run on a photo ({reason}).") from error
    if not largest <= LARGEST_OUTPUT:
        raise ModelError(
            f"{name}: the network's output for a photo is no image (it reaches {largest:g}, and 1 is white); the "
            "checkpoint is damaged, or its training failed. Take another one."
        )


@torch.inference_mode()
def precisions(network: SuperResolutionNetwork) -> list[str]:
    """Return those of the network's number formats in which it makes the pixels of float32, at LEAST_PSNR_DB or better.

    In float16 some networks overflow: their activations are above 65,504.
    """
    picture = _picture(network, 64)
    exact = ByteNetwork(network)(picture).float()
    fine = ["float32"]
    for name in (one for one in network.precisions if one != "float32"):
        half = ByteNetwork(copy.deepcopy(network).to(getattr(torch, name)))
        with suppress(RuntimeError):  # an operation that the CPU has not in this format
            made, total = half.checked(picture)
            loss = float((made.float() - exact).square().mean())
            if math.isfinite(float(total)) and loss <= 255**2 / 10 ** (LEAST_PSNR_DB / 10):
                fine.append(name)
    return sorted(fine)


@torch.inference_mode()
def alignment(network: SuperResolutionNetwork, multiple_of: int) -> int:
    """The number of pixels that may be cut off at the left and the top so that the rest of the result stays.

    The rest goes to the right and lower edge, where networks with squares continue an image to whole squares.

    It is the smallest of ALIGNMENTS that is a multiple of `multiple_of` and changes the result hardly more than the
    best of them: networks with operations on the whole image change a little with each shift.
    """
    candidates = sorted({one for one in ALIGNMENTS if one % multiple_of == 0} | {multiple_of})
    side, last = candidates[-1] + CONTEXT + COMPARED, COMPARED * network.factor
    picture = _picture(network, side).permute(0, 3, 1, 2) / 255

    def corner(shift: int) -> torch.Tensor:
        made: torch.Tensor = network(picture[..., shift:, shift:])
        return made[..., -last:, -last:]

    reference = corner(0)
    changes: dict[int, float] = {}
    for shift in candidates:
        changes[shift] = float((corner(shift) - reference).abs().max())
        if changes[shift] <= 0.25 / 255:
            return shift
    return next(shift for shift in candidates if changes[shift] <= 2 * min(changes.values()))


@torch.inference_mode()
def receptive_radius(network: SuperResolutionNetwork, alignment: int = 1, side: int = SIDE) -> int | None:
    """Radius in input pixels of the receptive field.

    None when it reaches the border of the probed image, or the network passes no NaN on.

    One input pixel is NaN (IEEE 754). Everything computed from it is NaN as well, independent of the weights. With an
    alignment, other pixels may reach as much further as their place in the network's squares differs.
    """
    image = torch.full((1, 3, side, side), 0.5)
    middle = side // 2
    image[:, :, middle, middle] = math.nan
    touched = network(image)[0].isnan().any(0).nonzero() // network.factor
    radius = int((touched - middle).abs().max()) if touched.numel() else middle
    return None if radius >= middle else radius + alignment - 1


@torch.inference_mode()
def halo(network: SuperResolutionNetwork, most: int, alignment: int = 1) -> int:
    """The smallest halo, of HALOS and `most`, with which the core of a window differs by at most one grey level.

    With an alignment, halos are rounded up to multiples of it, as those of tiles are.

    The reference is the same network with a halo of `most`, at most 128 pixels. The image is a photo continued by
    reflection, for factor 1 with noise.
    """
    bytes_network = ByteNetwork(network)
    widest = _rounded(min(most, HALOS[-1]), alignment)
    side = 2 * widest + WINDOW
    picture = _picture(network, side)
    expected = _core(bytes_network, picture, widest, widest)
    for one in sorted({_rounded(one, alignment) for one in HALOS}):
        if one >= widest:
            break
        if int((_core(bytes_network, picture, widest, one) - expected).abs().max()) <= 1:
            return one
    return most if most <= HALOS[-1] else HALOS[-1]


def _picture(network: SuperResolutionNetwork, side: int) -> torch.Tensor:
    """A photo, uint8 (1, side, side, 3); for factor 1 with noise."""
    pixels = photo(side, side)
    return torch.from_numpy((noisy(pixels) if network.factor == 1 else pixels)[None])


def _rounded(halo: int, alignment: int) -> int:
    return -(-halo // alignment) * alignment


def _core(network: ByteNetwork, picture: torch.Tensor, at: int, halo: int) -> torch.Tensor:
    """The enlarged core of the window at (at, at), computed with `halo` pixels around it; int16."""
    window = picture[:, at - halo : at + WINDOW + halo, at - halo : at + WINDOW + halo]
    factor = network.network.factor
    inner = slice(halo * factor, (halo + WINDOW) * factor)
    made: torch.Tensor = network(window)
    return made[:, inner, inner].to(torch.int16)
