"""Shared by both trainings: a schedule in wall-clock time, and a moving average of the weights, which is the result."""

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
"""Gradients are clipped to this norm."""
WARM_UP_STEPS = 300
"""Steps in which the learning rate rises linearly to its maximum."""
FLOOR = 0.003
"""Learning rate at the end of training, as a share of its maximum."""


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add the options that all trainings share, and parse the command line."""
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos to train on")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the version into")
    parser.add_argument("--version", required=True, help="name of the new version")
    parser.add_argument("--factors", type=_whole, default=[4, 2], help="factors to train, in order; default: 4,2")
    parser.add_argument(
        "--seconds", type=_numbers, default=[1500.0, 600.0], help="seconds for each factor; default: 1500,600"
    )
    parser.add_argument("--patch", type=int, default=64, help="side of the small patches in pixels, a multiple of 8")
    options = parser.parse_args()
    if len(options.factors) != len(options.seconds):
        parser.error("--seconds: as many as --factors")
    return options


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _whole(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def device() -> torch.device:
    """CUDA if it is available, else the CPU. Enables cuDNN's search for the fastest algorithms."""
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def charbonnier(found: Tensor, wanted: Tensor) -> Tensor:
    """The Charbonnier loss, a smooth L1 loss (Charbonnier et al. 1994); a scalar."""
    return torch.sqrt((found - wanted) ** 2 + 1e-6).mean()


def optimiser_step(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One optimiser step for a loss, with gradient clipping."""
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    for group in optimiser.param_groups:
        clip_grad_norm_(group["params"], LONGEST_GRADIENT)
    optimiser.step()


def place(network: Network, on: torch.device, precision: torch.dtype = torch.float32) -> Network:
    """Move a network to a device and precision, with its convolution weights in channels-last layout."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network.to(on, precision)


def compiled(network: nn.Module, on: torch.device) -> nn.Module:
    """The network through torch.compile on CUDA; unchanged on a CPU, where compiling takes longer than it saves."""
    return cast(nn.Module, torch.compile(network)) if on.type == "cuda" else network


def bfloat16(on: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the processor supports it natively: emulated, it is several times slower."""
    native = on.type != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(on.type, torch.bfloat16, enabled=native)


def steps(optimiser: torch.optim.Optimizer, rate: float, seconds: float) -> Iterator[float]:
    """Yield the share of the training time that is over, in [0, 1), once per step; sets the learning rate.

    The schedule depends on time, not on steps, so that it is complete on machines of any speed.
    """
    begin, count = time.monotonic(), 0
    while (done := (time.monotonic() - begin) / seconds) < 1:
        set_rate(optimiser, rate, count, done)
        yield done
        count += 1


def set_rate(optimiser: torch.optim.Optimizer, rate: float, count: int, done: float) -> None:
    """Set the learning rate: it warms up, then follows a cosine (Loshchilov & Hutter 2017) down to FLOOR.

    `count` is the number of steps made, `done` the share of the training that is over.
    """
    height = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2
    for group in optimiser.param_groups:
        group["lr"] = rate * min(1, (count + 1) / WARM_UP_STEPS) * height


class Average:
    """Exponential moving average of the weights of a network; `most` is the largest decay."""

    def __init__(self, network: SuperResolutionNetwork, most: float = 0.9995) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._most = most
        self.steps = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Update the average; to be called after each optimiser step."""
        self.steps += 1
        keep = min(self._most, self.steps / (self.steps + 9))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - keep)


def initialise(network: SuperResolutionNetwork) -> None:
    """He initialisation (He et al. 2015); the last layers of residual branches start with small weights."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=0.25)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            if name.endswith(("tail", "conv2")):
                layer.weight.data *= 0.1


def copy_matching(network: SuperResolutionNetwork, tensors: dict[str, Tensor]) -> None:
    """Copy all tensors whose name and shape match, for example the trunk of a network for another factor."""
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and tensor.shape == own[name].shape}
    network.load_state_dict(fitting, strict=False)


@torch.inference_mode()
def upscale(network: SuperResolutionNetwork, pixels: Pixels) -> Pixels:
    """Enlarge one image, uint8 (height, width, 3), with a network in training."""
    on = next(network.parameters()).device
    enlarged = ByteNetwork(network)(torch.from_numpy(pixels[None].copy()).to(on))[0]
    return np.asarray(enlarged.cpu().numpy())
