"""The peer pipeline, as in a simple script: tiles one by one in float32, copied to the host, PNG by Pillow."""

import io
import time

import numpy as np
import torch
from PIL import Image
from torch import nn

from upres.core import tiling
from upres.worker.engine import tiles
from upres.worker.engine.loading import load
from upres.worker.model import Model

TILE = 256
"""Tile size in pixels; the usual choice of Real-ESRGAN and similar programs."""


class Obvious:
    """One network in eager float32; `seconds` adds up the time of each stage over all runs."""

    def __init__(self, model: Model, factor: int, device: torch.device) -> None:
        network = next(network for network in model.manifest.networks if network.factor == factor)
        self._module: nn.Module = load(network, model).to(device)
        self._halo, self._factor, self._device = network.margin, factor, device
        self.seconds = dict.fromkeys(("decode", "upscale", "encode"), 0.0)

    def run(self, data: bytes) -> bytes:
        """Enlarge an image file; returns a PNG file."""
        begin = time.perf_counter()
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        decoded = time.perf_counter()
        enlarged = self._upscale(pixels)
        upscaled = time.perf_counter()
        out = io.BytesIO()
        Image.fromarray(enlarged).save(out, "PNG")
        self.seconds["decode"] += decoded - begin
        self.seconds["upscale"] += upscaled - decoded
        self.seconds["encode"] += time.perf_counter() - upscaled
        return out.getvalue()

    @torch.inference_mode()
    def _upscale(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        output = np.empty((height * self._factor, width * self._factor, 3), np.float32)
        for tile in tiling.plan(height, width, TILE, self._halo):
            window = torch.from_numpy(tiles.cut(pixels, tile).copy()).to(self._device)
            image = window.permute(2, 0, 1)[None].float() / 255
            enlarged = self._module(image)[0].permute(1, 2, 0).cpu().numpy()
            tiles.paste(output, tile, enlarged, self._factor)
        return (output.clip(0, 1) * 255).round().astype(np.uint8)
