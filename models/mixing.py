"""Mixes two models of one architecture: a version with interpolated weights, or one whose strength can be chosen."""

import shutil
from pathlib import Path
from typing import Any

from upres.core import registry
from upres.core.errors import ModelError
from upres.core.manifest import Network
from upres.core.strength import rounded
from upres.models import folder
from upres.models.folder import NewNetwork
from upres.worker.engine import loading
from upres.worker.model import Model, open_folder


def mix(base: Path, other: Path, at: float, about: dict[str, Any], to: Path) -> Model:
    """Write a version with weights (1 - at) · those of `base` + at · those of `other` into the folder `to`.

    Raises ModelError when the two have no network of one architecture and factor.
    """
    ours, theirs = _plain(other), _plain(base)
    made = [_mixed(one, ours, theirs, at) for one in _common(ours, theirs)]
    return folder.write(to, _about(ours, theirs, f"{at:.0%} of {ours} in {theirs}.") | about, made)


def mix_adjustable(base: Path, other: Path, at: float, about: dict[str, Any], to: Path) -> Model:
    """Write a version of `other` with the base `base` into the folder `to`, and the base into a folder inside.

    Its strength can be chosen by each job: 0 is the base, 1 is `other`, `at` is the default. Raises ModelError.
    """
    ours, theirs = _plain(other), _plain(base)
    shutil.copytree(base, to / registry.BASE)
    made = [NewNetwork(_fields(one), loading.stored(one, ours)) for one in _common(ours, theirs)]
    reference = {"model": theirs.manifest.name, "version": theirs.manifest.version, "digest": theirs.digest}
    described = _about(ours, theirs, f"{ours}, mixed with {theirs} as each job wants.")
    return folder.write(to, described | about | {"mix": {**reference, "strength": rounded(at)}}, made)


def _plain(path: Path) -> Model:
    """Open a version that has weights of its own alone. Raises ModelError."""
    model = open_folder(path)
    if model.base:
        raise ModelError(f"{model} is mixed already; mix the versions that it consists of.")
    return model


def _common(ours: Model, theirs: Model) -> list[Network]:
    """Our networks that the other model has, too. Raises ModelError when there are none."""
    known = [one.kind for one in theirs.manifest.networks if one.architecture != "graph"]
    found = [one for one in ours.manifest.networks if one.kind in known]
    if not found:
        listed = [f"{each}: {', '.join(one.kind for one in each.manifest.networks)}" for each in (ours, theirs)]
        raise ModelError(f"Only weights of one architecture and factor can be mixed ({' and '.join(listed)}).")
    return found


def _mixed(network: Network, ours: Model, theirs: Model, at: float) -> NewNetwork:
    base = next(one for one in theirs.manifest.networks if one.factor == network.factor)
    tensors = loading.mixed(network.file, loading.stored(network, ours), loading.stored(base, theirs), at)
    fields = _fields(network)
    fields["precisions"] = [one for one in network.precisions if one in base.precisions] or ["float32"]
    halos = [one.halo for one in (network, base) if one.halo is not None]
    return NewNetwork(fields | ({"halo": max(halos)} if halos else {}), tensors)


def _fields(network: Network) -> dict[str, Any]:
    return network.model_dump(exclude={"file", "sha256", "quality", "graph"})


def _about(ours: Model, theirs: Model, description: str) -> dict[str, Any]:
    licences = dict.fromkeys([theirs.manifest.licence, ours.manifest.licence])
    return {
        "licence": " AND ".join(licences),
        "origin": "; ".join(dict.fromkeys(one for each in (theirs, ours) if (one := each.manifest.origin))),
        "description": description,
    }
