"""The networks on a GPU, by torch, in half precision."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from upres.core.manifest import Network
from upres.worker.engine.compute import Finish, OutOfMemory, Pixels
from upres.worker.engine.networks import ByteNetwork, SuperResolutionNetwork, load
from upres.worker.model import Model


class TorchCompute:
    """torch, eager, channels last. Copies in, work and copies out have a stream each, so that they overlap."""

    def __init__(self, model: Model, kind: str, precision: str | None = None) -> None:
        device, cuda = torch.device(kind), kind == "cuda"
        self.precision = precision or best(kind, model.manifest.networks)
        self.batch_pixels = 2 * 640 * 640 if cuda else 256 * 256
        self.batches_ahead = 2 if cuda else 1
        self.warm_up_side = 640 if cuda else 64
        self._device = device
        self._overlaps = cuda
        # torch.cpu has streams and events that do nothing, so without CUDA the same lines run one after the other.
        self._runtime = torch.get_device_module(device if cuda else "cpu")
        self._inward, self._work, self._outward = (self._runtime.Stream() for _ in range(3))
        self._modules = {
            network.factor: place(load(network, model), device, getattr(torch, self.precision))
            for network in model.manifest.networks
        }

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """See Compute."""
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
        with _out_of_memory():
            copied.synchronize()
        pixels: Pixels = host.numpy()
        return pixels

    def _on_host(self, shape: Sequence[int]) -> Tensor:
        """Bytes that the device can copy to and from by itself; torch keeps and reuses pinned memory."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._overlaps)


@contextmanager
def _out_of_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what torch's allocator holds but does not use
        raise OutOfMemory(str(error)) from error


def best(kind: str, networks: Iterable[Network]) -> str:
    """The precision that is fastest on a kind of device, of those that all networks may be computed in."""
    wanted = {"cuda": ("bfloat16", "float16"), "mps": ("float16",)}.get(kind, ())
    fine = [one for one in wanted if all(one in network.precisions for network in networks)]
    return fine[0] if fine else "float32"


def place(network: SuperResolutionNetwork, device: torch.device, dtype: torch.dtype) -> ByteNetwork:
    """A network for bytes on a device, in a precision, with its weights channels last."""
    module = ByteNetwork(network.to(dtype))
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module.to(device)
