"""Small networks of spandrel with random weights, and versions of them without golden images."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tests.support import spandrel_on_cpu
from upres.core import registry
from upres.core.manifest import Manifest, schema_version
from upres.worker.engine.spandrel_network import SpandrelNetwork
from upres.worker.model import Model

spandrel_on_cpu.declare()

TRIAL = (sys.executable, "-m", "tests.support.trial_on_cpu")
"""For `trials.COMMAND`: the program of a trial on this build of torch."""
VERSION_TRIAL = (*TRIAL, "--version")
"""The same for `version_trials.COMMAND`."""


def span() -> Any:
    from spandrel.architectures.SPAN import SPAN

    return SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2)


def esrgan() -> Any:
    from spandrel.architectures.ESRGAN import ESRGAN

    return ESRGAN(num_filters=8, num_blocks=1, scale=2)


def safmn() -> Any:
    """Its sides are multiples of 8."""
    from spandrel.architectures.SAFMN import SAFMN

    return SAFMN(dim=16, n_blocks=1, upscaling_factor=2)


def omnisr() -> Any:
    """It has attention in windows, and pads its input itself."""
    from spandrel.architectures.OmniSR import OmniSR

    return OmniSR(num_feat=16, res_num=1, up_scale=2)


def swin2sr() -> Any:
    """Its count of windows becomes constant when it is traced."""
    from spandrel.architectures.Swin2SR import Swin2SR

    size = {"img_size": 16, "window_size": 8, "embed_dim": 16, "depths": [2], "num_heads": [2], "mlp_ratio": 2}
    return Swin2SR(upscale=2, upsampler="pixelshuffledirect", **size)


def dat() -> Any:
    """Its squares become constant when it is traced."""
    from spandrel.architectures.DAT import DAT

    size = {"img_size": 16, "split_size": [4, 8], "embed_dim": 16, "depth": [2], "num_heads": [2]}
    return DAT(upscale=2, expansion_factor=2, upsampler="pixelshuffledirect", **size)


def version(folder: Path, make: Callable[[], nn.Module], seed: int = 0, times: float = 1) -> Model:
    """Write the weights of a network, multiplied by `times`, into a folder, and return a version with it."""
    torch.manual_seed(seed)
    tensors = {name: one.detach().clone() for name, one in make().state_dict().items()}
    tensors = {name: one * times if one.is_floating_point() else one for name, one in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "theirs.safetensors"
    save_file({name: one.contiguous() for name, one in tensors.items()}, file)
    network = SpandrelNetwork.of(tensors)
    field = {"receptive_radius": None, "halo": 24, "alignment": network.sides["multiple_of"], "sides": network.sides}
    digest = registry.digest(file.read_bytes())
    fields = {**field, "architecture": "spandrel", "factor": network.factor, "file": file.name, "sha256": digest}
    about = {"name": make.__name__, "version": "1", "description": "A test.", "licence": "MIT", "created": "2026-01-01"}
    schema = schema_version([network.factor], False)
    manifest = Manifest.model_validate({**about, "schema_version": schema, "networks": [fields]})
    return Model(manifest, f"{digest[:63]}{seed}", {file.name: file}, file.stat().st_size)
