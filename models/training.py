"""What both kinds of training share: a schedule over wall-clock time, and a mean of the weights, which is kept."""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from upres.models.pairs import Pixels
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork

Network = TypeVar("Network", bound=nn.Module)
LONGEST_GRADIENT = 0.5
WARM_UP_STEPS = 300
FLOOR = 0.003
"""The learning rate ends at this share of its height."""


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What every training is told."""
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos to train on")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the version into")
    parser.add_argument("--version", required=True, help="what to call it")
    parser.add_argument("--factors", type=_whole, default=[4, 2], help="4,2 by default")
    parser.add_argument(
        "--seconds", type=_numbers, default=[1500.0, 600.0], help="for each factor; 1500,600 by default"
    )
    parser.add_argument("--patch", type=int, default=64, help="side of the small patch in pixels, a multiple of 8")
    options = parser.parse_args()
    if len(options.factors) != len(options.seconds):
        parser.error("--seconds: as many as --factors")
    return options


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _whole(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def device() -> torch.device:
    """Where there is CUDA, there."""
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def charbonnier(found: Tensor, wanted: Tensor) -> Tensor:
    """A smooth absolute difference (Charbonnier et al. 1994)."""
    return torch.sqrt((found - wanted) ** 2 + 1e-6).mean()


def descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One step downhill, with the gradient's length limited."""
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    for group in optimiser.param_groups:
        clip_grad_norm_(group["params"], LONGEST_GRADIENT)
    optimiser.step()


def place(network: Network, on: torch.device, precision: torch.dtype = torch.float32) -> Network:
    """A network on a device, with its weights channels last."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network.to(on, precision)


def compiled(network: nn.Module, on: torch.device) -> nn.Module:
    """The same, faster; on a CPU that is not worth its time."""
    return cast(nn.Module, torch.compile(network)) if on.type == "cuda" else network


def bfloat16(on: torch.device) -> torch.autocast:
    """Half precision for a forward pass, where the processor computes in it: emulated, it is several times slower."""
    native = on.type != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(on.type, torch.bfloat16, enabled=native)


def steps(optimiser: torch.optim.Optimizer, rate: float, seconds: float) -> Iterator[float]:
    """Shares of the time that are over, once per step; sets the learning rate: a warm-up, then a cosine.

    Schedules over time, not steps, end well whatever the machine (Loshchilov & Hutter 2017 for the cosine).
    """
    begin, count = time.monotonic(), 0
    while (done := (time.monotonic() - begin) / seconds) < 1:
        height = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (count + 1) / WARM_UP_STEPS) * height
        yield done
        count += 1


class Average:
    """Exponential moving average of a network's weights."""

    def __init__(self, network: SuperResolutionNetwork, most: float = 0.9995) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._most = most
        self._steps = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """One step of the network happened."""
        self._steps += 1
        keep = min(self._most, self._steps / (self._steps + 9))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - keep)


def initialise(network: SuperResolutionNetwork) -> None:
    """He's initialisation, and residual branches that begin small."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=0.25)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            if name.endswith(("tail", "conv2")):
                layer.weight.data *= 0.1


def start_from(network: SuperResolutionNetwork, tensors: dict[str, Tensor]) -> None:
    """Take over all tensors that have the same name and shape: the trunk of a network for another factor, say."""
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and tensor.shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)


@torch.inference_mode()
def upscale(network: SuperResolutionNetwork, pixels: Pixels) -> Pixels:
    """One image through a network that is being trained."""
    on = next(network.parameters()).device
    enlarged = ByteNetwork(network)(torch.from_numpy(pixels[None].copy()).to(on))[0]
    return np.asarray(enlarged.cpu().numpy())
