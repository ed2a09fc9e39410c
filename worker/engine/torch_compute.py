"""Runs networks with torch: on a GPU in half precision, on a CPU in float32."""

from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from upres.core import cores
from upres.core.manifest import Network
from upres.worker.engine import memory_errors
from upres.worker.engine.compute import Finish, OutOfMemory, Pixels, check_finite
from upres.worker.engine.loading import load
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork
from upres.worker.model import Model

MEMORY_SHARE = 0.8
"""Share of the free memory that one batch may use: the results of the batch before are still there."""


class _Streams(NamedTuple):
    """Streams of a device for uploads, computation and downloads. All models share them, and so what they allocate."""

    inward: torch.Stream
    work: torch.Stream
    outward: torch.Stream


@cache
def _streams(device: torch.device) -> _Streams:
    runtime = torch.get_device_module(device)
    return _Streams(runtime.Stream(), runtime.Stream(), runtime.Stream())


class TorchCompute:
    """torch in eager mode, channels last. Uploads, computation and downloads have one CUDA stream each, and overlap."""

    def __init__(self, model: Model, kind: str, precision: str | None = None) -> None:
        device, cuda = torch.device(kind), kind == "cuda"
        torch.set_num_threads(min(torch.get_num_threads(), cores.count()))  # it knows no quotas
        self.precision = precision or best(kind, model.manifest.networks)
        self.batch_pixels = 2 * 640 * 640 if cuda else 256 * 256
        self.batches_ahead = 2 if cuda else 1
        self.warm_up_side = 640 if cuda else 64
        self.seconds = 0.0 if cuda else None
        self._device = device
        self._overlaps = cuda
        # The streams and events of torch.cpu do nothing. So without CUDA the same code runs, step after step.
        self._runtime = torch.get_device_module(device if cuda else "cpu")
        self._streams = _streams(device if cuda else torch.device("cpu"))
        self._bytes_per_pixel: dict[int, float] = {}
        if cuda:
            torch.backends.cudnn.allow_tf32 = False  # float32 means float32; half precision is faster anyway
        self._modules = {
            network.factor: place(load(network, model), device, getattr(torch, self.precision))
            for network in model.manifest.networks
        }

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Start a batch (see Compute)."""
        try:
            return self._start(factor, windows)
        except Exception as error:
            if (reason := memory_errors.reason(error)) is None:
                raise
        # Not in the except block, nor with the error as a cause: it holds the tensors of the failed batch.
        self._free()
        raise OutOfMemory(reason)

    @torch.inference_mode()
    def _start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        streams, measured = self._streams, self._begin_to_measure(factor)
        packed = self._on_host((len(windows), *windows[0].shape))
        np.stack(windows, out=packed.numpy())
        with self._runtime.stream(streams.inward):
            batch = packed.to(self._device, non_blocking=self._overlaps)
        streams.work.wait_stream(streams.inward)
        began, ended, copied = self._event(timed=True), self._event(timed=True), self._event()
        with self._runtime.stream(streams.work):
            began.record()
            enlarged, total = self._modules[factor].checked(batch)
            enlarged = enlarged.contiguous()
            ended.record()
        if measured is not None:
            peak = torch.cuda.max_memory_allocated() - measured
            self._bytes_per_pixel[factor] = peak / (batch.shape[0] * batch.shape[1] * batch.shape[2])
        streams.outward.wait_stream(streams.work)
        host, host_total = self._on_host(enlarged.shape), self._on_host((), torch.float32)
        with self._runtime.stream(streams.outward):
            host.copy_(enlarged, non_blocking=self._overlaps)
            host_total.copy_(total, non_blocking=self._overlaps)
            copied.record()
        # torch's allocator knows only one stream per tensor, and could reuse the memory while another stream still
        # needs it. So the returned function holds the tensors until the download is complete.
        return partial(self._finish, (began, ended, copied), host, host_total, (packed, batch, enlarged, total))

    def _finish(self, events: Sequence[Any], host: Tensor, total: Tensor, held: tuple[Tensor, ...]) -> Pixels:
        """Wait for the download of a batch; `held` keeps its tensors alive until then."""
        began, ended, copied = events
        try:
            copied.synchronize()
            if self.seconds is not None:
                self.seconds += began.elapsed_time(ended) / 1000
        except Exception as error:
            if (reason := memory_errors.reason(error)) is None:
                raise
        else:
            check_finite(float(total))
            pixels: Pixels = host.numpy()
            return pixels
        del held
        self._free()
        raise OutOfMemory(reason)

    def probe(self) -> None:
        """Run a tiny kernel, and wait for its result (see Compute)."""
        assert float(torch.ones(8, device=self._device).sum()) == 8

    def largest_batch(self, factor: int) -> int | None:
        """Return how many pixels fit into the free memory (see Compute); known after the first batch on CUDA."""
        if factor not in self._bytes_per_pixel:
            return None
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(free * MEMORY_SHARE / self._bytes_per_pixel[factor])

    def _begin_to_measure(self, factor: int) -> int | None:
        """Return the bytes of CUDA memory in use before the first batch of a network; later None.

        Memory is allocated when work is enqueued, by this thread alone. So the peak is this batch's, whatever runs.
        """
        if not self._overlaps or factor in self._bytes_per_pixel:
            return None
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def _event(self, timed: bool = False) -> Any:
        """Make an event. A thread that waits for it sleeps, and leaves the processor to the encoders."""
        return self._runtime.Event(enable_timing=timed, blocking=True) if self._overlaps else self._runtime.Event()

    def _free(self) -> None:
        """Give the memory that torch's allocator keeps back to the device."""
        if self._overlaps:
            torch.cuda.empty_cache()

    def _on_host(self, shape: Sequence[int], dtype: torch.dtype = torch.uint8) -> Tensor:
        """Allocate a tensor on the host. With CUDA it is pinned, so that copies overlap; torch reuses pinned memory."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._overlaps)


def best(kind: str, networks: Iterable[Network]) -> str:
    """Return the fastest precision on a kind of device, of those that all networks allow."""
    # On CUDA, float16 is as fast as bfloat16 or faster, and is more exact; GPUs before Ampere only emulate bfloat16.
    wanted = {"cuda": ("float16", "bfloat16"), "mps": ("float16",)}.get(kind, ())
    fine = [one for one in wanted if all(one in network.precisions for network in networks)]
    return fine[0] if fine else "float32"


def place(network: SuperResolutionNetwork, device: torch.device, dtype: torch.dtype) -> ByteNetwork:
    """Move a network to a device, in a precision and with channels-last weights, as a network from bytes to bytes."""
    module = ByteNetwork(network.to(dtype))
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module.to(device)
