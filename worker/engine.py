"""The engine: owns the device, has every network of the model on it, enlarges images in tiles."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import ModelError
from core.manifest import Manifest, Network
from worker import networks, tiling
from worker.registry import Model

TILE = 256
"""Side of a window in input pixels. On a CPU its activations still fit the caches, and a network of
receptive radius 35 spends half of its work on pixels that are kept."""

Pixels = npt.NDArray[np.uint8]
OnTile = Callable[[int, int], None]
"""Called after each tile with (done, total); what it raises stops the work."""


class _Pass(NamedTuple):
    network: Network
    tiles: list[tiling.Tile]
    height: int
    width: int


class Engine:
    """One model on one device. Not safe for concurrent calls: the device has one owner."""

    def __init__(self, model: Model, device: torch.device, tile: int = TILE) -> None:
        self.manifest: Manifest = model.manifest
        self._device = device
        self._tile = tile
        self._modules = {network.factor: self._load(network, model) for network in model.manifest.networks}

    def warm_up(self) -> None:
        """Run every network once on a whole tile, so that the first job does not pay for preparing that shape."""
        for factor in self._modules:
            self._forward(factor, np.zeros((self._tile, self._tile, 3), np.uint8))

    def upscale(self, pixels: Pixels, factor: int, on_tile: OnTile = lambda done, total: None) -> Pixels:
        """Enlarge (height, width, 3) RGB to (height·factor, width·factor, 3).

        Tiled equals untiled. Factors without a network of their own run as a chain, 8 = 4 · 2, with
        one count of tiles. Raises ModelError when the model cannot make the factor.
        """
        passes = self._passes(pixels.shape[0], pixels.shape[1], factor)
        total = sum(len(step.tiles) for step in passes)
        done = 0
        for step in passes:
            scale = step.network.factor
            output = np.empty((step.height * scale, step.width * scale, 3), np.uint8)
            for tile in step.tiles:
                tiling.paste(output, tile, self._forward(scale, tiling.cut(pixels, tile)), scale)
                done += 1
                on_tile(done, total)
            pixels = output
        return pixels

    def _passes(self, height: int, width: int, factor: int) -> list[_Pass]:
        chain = self.manifest.chain(factor)
        if not chain:
            raise ModelError(f"Model {self.manifest.name!r} has no networks for factor {factor}.")
        passes = []
        for network in chain:
            tiles = tiling.plan(height, width, self._tile, network.receptive_radius)
            passes.append(_Pass(network, tiles, height, width))
            height, width = height * network.factor, width * network.factor
        return passes

    @torch.inference_mode()
    def _forward(self, factor: int, window: npt.NDArray[np.generic]) -> Pixels:
        """One window through one network; uint8 crosses the bus, everything else is done on the device."""
        bytes_in = torch.from_numpy(np.array(window)).to(self._device)
        image = bytes_in.permute(2, 0, 1).unsqueeze(0).float().div_(255)
        output: Tensor = self._modules[factor](image.contiguous(memory_format=torch.channels_last))
        bytes_out = output.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
        result: Pixels = bytes_out[0].permute(1, 2, 0).contiguous().cpu().numpy()
        return result

    def _load(self, network: Network, model: Model) -> nn.Module:
        module = networks.build(network)
        try:
            weights = load_file(model.weights[network.factor])
            module.load_state_dict(weights, strict=True, assign=True)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{network.file} does not fit its manifest: {error}") from error
        module.requires_grad_(False).eval()
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return module.to(self._device)
