"""Networks on a device: uint8 windows in, uint8 windows out; scaling, clamping and rounding happen there.

On CUDA and MPS torch runs them in half precision; on a CPU OpenVINO does,
in bfloat16 where the processor has it: measured 6 times as fast as eager torch in float32 on two cores
of an AVX-512 machine, see benchmarks/RESULTS.md.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker.engine.networks import EDSR, ByteNetwork, load
from worker.engine.openvino_compute import OpenVinoCompute
from worker.registry import Model

Pixels = npt.NDArray[np.uint8]
Finish = Callable[[], Pixels]
"""Waits for a batch that was started: (count, height·factor, width·factor, 3)."""


class Compute(Protocol):
    """The networks of one model on one device. Called from one thread."""

    precision: str
    """What tiles are computed in, for people."""
    batch_pixels: int
    """How many pixels a batch may have before more of them make it no faster per pixel."""
    batches_ahead: int
    """How many batches may be under way: 1 where `start` itself does the work."""
    warm_up_side: int
    """Side of the window, in pixels, with which the first use is prepared for all others."""

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Begin with a batch of windows, (height, width, 3) each, all of one shape.

        Raises torch.OutOfMemoryError, here or in what is returned, when the device has too little memory.
        """
        ...


class TorchCompute:
    """torch, eager, channels last. Copies in, work and copies out have a stream each, so that they overlap."""

    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype) -> None:
        cuda = device.type == "cuda"
        self.precision = str(dtype).removeprefix("torch.")
        self.batch_pixels = 2 * 640 * 640 if cuda else 256 * 256
        self.batches_ahead = 2 if cuda else 1
        self.warm_up_side = 640 if cuda else 64
        self._device = device
        self._overlaps = cuda
        # torch.cpu has streams and events that do nothing, so without CUDA the same lines run one after the other.
        self._runtime = torch.get_device_module(device if cuda else "cpu")
        self._inward, self._work, self._outward = (self._runtime.Stream() for _ in range(3))
        self._modules = {
            network.factor: place(load(network, model), device, dtype) for network in model.manifest.networks
        }

    @torch.inference_mode()
    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """See Compute."""
        packed = self._on_host((len(windows), *windows[0].shape))
        np.stack(windows, out=packed.numpy())
        with self._runtime.stream(self._inward):
            batch = packed.to(self._device, non_blocking=self._overlaps)
        self._work.wait_stream(self._inward)
        with self._runtime.stream(self._work):
            enlarged = self._modules[factor](batch).contiguous()
        self._outward.wait_stream(self._work)
        host = self._on_host(enlarged.shape)
        with self._runtime.stream(self._outward):
            host.copy_(enlarged, non_blocking=self._overlaps)
            copied = self._runtime.Event()
            copied.record()
        # The allocator knows one stream per tensor: whoever finishes holds them until all streams are through.
        return partial(self._finish, copied, host, (packed, batch, enlarged))

    def _finish(self, copied: torch.Event, host: Tensor, held: tuple[Tensor, ...]) -> Pixels:
        copied.synchronize()
        pixels: Pixels = host.numpy()
        return pixels

    def _on_host(self, shape: Sequence[int]) -> Tensor:
        """Bytes that the device can copy to and from by itself; torch keeps and reuses pinned memory."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._overlaps)


def place(network: EDSR, device: torch.device, dtype: torch.dtype) -> ByteNetwork:
    """A network for bytes on a device, in a precision, with its weights channels last."""
    module = ByteNetwork(network.to(dtype))
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module.to(device)


def choose(model: Model, device: torch.device, cache: Path | None = None) -> Compute:
    """What is fastest on the device within 0.01 dB of float32; `cache` is a folder for what takes long to prepare."""
    if device.type == "cpu":
        return OpenVinoCompute(model, cache)
    return TorchCompute(model, device, torch.bfloat16 if device.type == "cuda" else torch.float16)
