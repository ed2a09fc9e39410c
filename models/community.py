"""Converts checkpoints from other projects to model versions; reads them without running code in them."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from upres.core.errors import ModelError
from upres.core.manifest import FACTORS, SCHEMA_VERSION, Manifest, Network
from upres.core.weights import check_safetensors
from upres.models import checkpoint_files, folder, probe
from upres.models.folder import NewNetwork
from upres.worker.engine.loading import build
from upres.worker.engine.networks import SuperResolutionNetwork
from upres.worker.engine.spandrel_network import SpandrelNetwork, UnknownArchitecture
from upres.worker.model import Model

MINIMAL_MANIFEST = {
    "schema_version": SCHEMA_VERSION,
    "created": "2026-01-01",
    "networks": [
        {"architecture": "edsr", "factor": 2, "receptive_radius": 0, "file": "x.safetensors", "sha256": "0" * 64}
    ],
}
"""A manifest without the fields that describe the model; used to validate those fields before the conversion."""
WRAPPER_PREFIXES = ("_orig_mod.", "module.")
"""Beginnings of all names in checkpoints of modules in torch.compile and DistributedDataParallel."""
PREFIXES = ("generator.", "model.")
"""Beginnings of all names in checkpoints of training programs."""


def convert(file: Path, to: Path, about: Mapping[str, str]) -> Model:
    """Convert a checkpoint to a version in the folder `to`. `about`: name, version, licence and description.

    Raises ModelError when the file cannot be read, contains code, or its architecture cannot enlarge RGB images;
    pydantic.ValidationError when `about` is invalid.
    """
    Manifest.model_validate(MINIMAL_MANIFEST | dict(about))
    tensors = checkpoint_files.read(file)
    check_safetensors(file.name, save(tensors))
    network, fields, tensors = _recognised(tensors)
    probe.check_output(network, file.name)
    fields["precisions"] = probe.precisions(network)
    if isinstance(network, SpandrelNetwork):
        alignment = probe.alignment(network, network.sides["multiple_of"])
        radius = probe.receptive_radius(network, alignment)
        fields |= {"receptive_radius": radius, "alignment": alignment}
    radius = fields["receptive_radius"]
    halo = probe.halo(network, probe.HALOS[-1] if radius is None else radius, fields.get("alignment", 1))
    fields["halo"] = None if halo == radius else halo
    try:
        return folder.write(to, about, [NewNetwork(fields, tensors)])
    except RuntimeError as error:  # foreign code, which ran alone, and does not in the engine
        shutil.rmtree(to)
        raise ModelError(f"{file.name}: the network cannot be run as workers run it ({error}).") from error


def _recognised(tensors: dict[str, Tensor]) -> tuple[SuperResolutionNetwork, dict[str, Any], dict[str, Tensor]]:
    """Build the network of these tensors, if need be without PREFIXES of their names.

    Returns it with its fields of a manifest and its tensors. Raises ModelError when no architecture is recognised.
    """
    named = list(_named(tensors))
    for one in named:
        if fields := _native(one):
            network = _build(fields)
            network.to_empty(device="cpu").load_state_dict(one)
            return network.eval(), fields, one
    for one in named:
        with suppress(UnknownArchitecture):
            network = SpandrelNetwork.of(one)
            about = {"architecture": "spandrel", "factor": network.factor, "sides": network.sides}
            return network.eval(), about, one
    raise UnknownArchitecture("spandrel recognises no architecture by these tensors.")


def _named(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors with the names that they have, then without each of PREFIXES that all names begin with.

    WRAPPER_PREFIXES are left out at once. The others may belong to the architecture: ESRGAN's names begin with
    `model.`, for example.
    """
    while prefix := _common(tensors, WRAPPER_PREFIXES):
        tensors = _without(tensors, prefix)
    yield tensors
    if prefix := _common(tensors, PREFIXES):
        yield from _named(_without(tensors, prefix))


def _common(tensors: Mapping[str, Tensor], prefixes: Sequence[str]) -> str:
    """The first of these prefixes that all names begin with; empty if there is none."""
    return next((one for one in prefixes if tensors and all(name.startswith(one) for name in tensors)), "")


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def describe_receptive_field(network: Network) -> str:
    """Describe the receptive field and the halo of a network in words."""
    if network.receptive_radius is None:
        return f"sees the whole image: untiled while it fits, overlapped by {network.margin} pixels where it does not"
    return f"receptive radius {network.receptive_radius} pixels, halo {network.margin} pixels"


def _native(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The manifest fields, if the architecture is one that upres implements itself; such versions need no spandrel."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return next((fields for fields in (_rrdb(shapes), _compact(shapes)) if fields and _fits(fields, shapes)), None)


def _rrdb(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    first, grown = shapes.get("conv_first.weight"), shapes.get("body.0.rdb1.conv1.weight")
    if not first or not grown:
        return None
    depth = len({name.split(".")[1] for name in shapes if name.startswith("body.")})
    return {
        "architecture": "rrdb",
        "factor": 4,
        "parameters": {"width": first[0], "depth": depth, "growth": grown[0]},
        "receptive_radius": 15 * depth + 4,
    }


def _compact(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    numbers = [name.split(".")[1] for name in shapes if name.startswith("body.") and name.count(".") == 2]
    layers = sorted({int(number) for number in numbers if number.isdigit()})
    last = shapes.get(f"body.{layers[-1]}.weight", ()) if layers else ()
    factor = next((factor for factor in FACTORS if len(last) == 4 and last[0] == 3 * factor * factor), None)
    if factor is None:
        return None
    depth = (len(layers) - 3) // 2
    return {
        "architecture": "compact",
        "factor": factor,
        "parameters": {"width": last[1], "depth": depth},
        "receptive_radius": depth + 2,
    }


def _fits(fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return {name: tuple(tensor.shape) for name, tensor in _build(fields).state_dict().items()} == shapes


def _build(fields: Mapping[str, Any]) -> SuperResolutionNetwork:
    return build(fields["architecture"], fields["factor"], fields["parameters"])
