"""Runs networks with torch: on a GPU in half precision, on a CPU in float32."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from upres.core.manifest import Network
from upres.worker.engine.compute import Finish, OutOfMemory, Pixels, check_finite
from upres.worker.engine.loading import load
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork
from upres.worker.model import Model


class TorchCompute:
    """torch in eager mode, channels last. Uploads, computation and downloads have one CUDA stream each, and overlap."""

    def __init__(self, model: Model, kind: str, precision: str | None = None) -> None:
        device, cuda = torch.device(kind), kind == "cuda"
        self.precision = precision or best(kind, model.manifest.networks)
        self.batch_pixels = 2 * 640 * 640 if cuda else 256 * 256
        self.batches_ahead = 2 if cuda else 1
        self.warm_up_side = 640 if cuda else 64
        self._device = device
        self._overlaps = cuda
        # The streams and events of torch.cpu do nothing. So without CUDA the same code runs, step after step.
        self._runtime = torch.get_device_module(device if cuda else "cpu")
        self._inward, self._work, self._outward = (self._runtime.Stream() for _ in range(3))
        self._modules = {
            network.factor: place(load(network, model), device, getattr(torch, self.precision))
            for network in model.manifest.networks
        }

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Start a batch (see Compute)."""
        with _out_of_memory():
            return self._start(factor, windows)

    @torch.inference_mode()
    def _start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        packed = self._on_host((len(windows), *windows[0].shape))
        np.stack(windows, out=packed.numpy())
        with self._runtime.stream(self._inward):
            batch = packed.to(self._device, non_blocking=self._overlaps)
        self._work.wait_stream(self._inward)
        with self._runtime.stream(self._work):
            enlarged, total = self._modules[factor].checked(batch)
            enlarged = enlarged.contiguous()
        self._outward.wait_stream(self._work)
        host, host_total = self._on_host(enlarged.shape), self._on_host((), torch.float32)
        with self._runtime.stream(self._outward):
            host.copy_(enlarged, non_blocking=self._overlaps)
            host_total.copy_(total, non_blocking=self._overlaps)
            copied = self._runtime.Event()
            copied.record()
        # torch's allocator knows only one stream per tensor, and could reuse the memory while another stream still
        # needs it. So the returned function holds the tensors until the download is complete.
        return partial(self._finish, copied, host, host_total, (packed, batch, enlarged, total))

    def _finish(self, copied: torch.Event, host: Tensor, total: Tensor, held: tuple[Tensor, ...]) -> Pixels:
        """Wait for the download of a batch; `held` keeps its tensors alive until then."""
        with _out_of_memory():
            copied.synchronize()
        check_finite(float(total))
        pixels: Pixels = host.numpy()
        return pixels

    def _on_host(self, shape: Sequence[int], dtype: torch.dtype = torch.uint8) -> Tensor:
        """Allocate a tensor on the host. With CUDA it is pinned, so that copies overlap; torch reuses pinned memory."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._overlaps)


@contextmanager
def _out_of_memory() -> Iterator[None]:
    """Convert torch's error to OutOfMemory, and free the memory that torch's allocator caches."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise OutOfMemory(str(error)) from error


def best(kind: str, networks: Iterable[Network]) -> str:
    """Return the fastest precision on a kind of device, of those that all networks allow."""
    wanted = {"cuda": ("bfloat16", "float16"), "mps": ("float16",)}.get(kind, ())
    fine = [one for one in wanted if all(one in network.precisions for network in networks)]
    return fine[0] if fine else "float32"


def place(network: SuperResolutionNetwork, device: torch.device, dtype: torch.dtype) -> ByteNetwork:
    """Move a network to a device, in a precision and with channels-last weights, as a network from bytes to bytes."""
    module = ByteNetwork(network.to(dtype))
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module.to(device)
