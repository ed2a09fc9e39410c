"""Checkpoints of networks with factor 1: which are imported, and that their tiles match the whole image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import spandrel_on_cpu
from tests.support.checkpoints import ABOUT, calm, saved
from tests.support.devices import torch_on_it
from upres.core import tiling
from upres.core.errors import ModelError
from upres.models import community
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.networks import SRVGGNetCompact

spandrel_on_cpu.declare()


def swinir_without_factor() -> dict[str, torch.Tensor]:
    """A network with so little attention that the squares show only where it continues the image to whole ones."""
    from spandrel.architectures.SwinIR import SwinIR

    size = {"img_size": 16, "window_size": 8, "embed_dim": 16, "depths": [2], "num_heads": [2], "mlp_ratio": 2}
    return calm(SwinIR(upscale=1, upsampler="", **size), 0.05)


def dncnn() -> dict[str, torch.Tensor]:
    from spandrel.architectures.DnCNN import DnCNN

    return calm(DnCNN(in_nc=3, out_nc=3, nc=8, nb=5), 0.1)


def drunet() -> dict[str, torch.Tensor]:
    from spandrel.architectures.DRUNet import DRUNet

    return calm(DRUNet(in_nc=4, out_nc=3, nc=[8, 8, 8, 16], nb=4))


@pytest.mark.device
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # SwinIR in spandrel causes it
@pytest.mark.parametrize(
    ("make", "architecture", "alignment"),
    [
        (lambda: calm(SRVGGNetCompact(1, width=8, depth=3), 0.1), "compact", 1),
        (dncnn, "spandrel", 1),
        (swinir_without_factor, "spandrel", 8),
    ],
)
def test_networks_with_factor_one_are_imported_and_tiles_do_not_show(
    tmp_path: Path, make: Any, architecture: str, alignment: int
) -> None:
    model = community.convert(saved(make(), tmp_path / "one.pth"), tmp_path / "one", ABOUT)
    [network] = model.manifest.networks
    assert (network.architecture, network.factor, network.alignment) == (architecture, 1, alignment)
    with DeviceThread() as thread:
        engine = Engine(model.manifest, torch_on_it(model), thread, tile=1000)
        pixels = np.random.default_rng(0).integers(0, 256, (61, 75, 3), np.uint8)
        whole = engine.upscale(pixels, 1)
        engine.limits.tile = tiling.smallest(model.manifest)
        assert engine.progress_at(pixels, 1, 0)[1] > 1
        assert np.abs(engine.upscale(pixels, 1).astype(int) - whole).max() <= 1
        assert (whole != pixels).any()


def test_a_network_that_needs_more_than_an_image_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="DRUNet needs a noise level; upres gives networks an image and nothing else"):
        community.convert(saved(drunet(), tmp_path / "drunet.pth"), tmp_path / "out", ABOUT)


def test_a_network_that_fails_for_a_photo_is_refused(tmp_path: Path) -> None:
    """The numbers of its layers do not fit together, which only running it shows."""
    from spandrel.architectures.FBCNN import FBCNN

    broken = calm(FBCNN(nc=[8, 8, 8, 16], nb=4))
    with pytest.raises(ModelError, match=r"fbcnn\.pth: the network cannot be run on a photo \(mat1 and mat2"):
        community.convert(saved(broken, tmp_path / "fbcnn.pth"), tmp_path / "out", ABOUT)
