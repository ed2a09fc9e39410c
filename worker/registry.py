"""Models from the object store: manifest and weights, checked by digest, kept on disk between starts."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from core import keys
from core.errors import ModelError
from core.manifest import Labels, Manifest, Network
from core.storage import ObjectNotFound, Store


class Model(NamedTuple):
    """A model version whose files lie on this machine and have the digests that its manifest names."""

    manifest: Manifest
    digest: str
    weights: dict[int, Path]


def pull(store: Store, name: str, cache: Path) -> Model:
    """The stable version of a model; ModelError when it is missing, damaged or of a newer schema.

    Files are cached under their digest, so a restart costs no transfer and no file is trusted for
    its name. Raises StoreUnavailable when the store does not answer.
    """
    try:
        version = Labels.model_validate_json(store.get(keys.labels(name))).stable
        raw = store.get(keys.model(name, version, "manifest.json"))
        manifest = Manifest.model_validate_json(raw)
    except ObjectNotFound as error:
        raise ModelError(f"Model {name!r} is not in the store: {error}") from error
    except ValidationError as error:
        raise ModelError(f"Model {name!r} has a manifest or labels that this worker cannot read: {error}") from error
    weights = {
        network.factor: _file(store, manifest, network, cache.expanduser() / "models") for network in manifest.networks
    }
    return Model(manifest, _digest(raw), weights)


def open_folder(folder: Path) -> Model:
    """A model version that lies on this machine, checked in the same way."""
    raw = (folder / "manifest.json").read_bytes()
    manifest = Manifest.model_validate_json(raw)
    weights = {network.factor: folder / network.file for network in manifest.networks}
    for network in manifest.networks:
        _check(manifest, network, weights[network.factor].read_bytes())
    return Model(manifest, _digest(raw), weights)


def _file(store: Store, manifest: Manifest, network: Network, cache: Path) -> Path:
    """The cached file with this digest, fetched first when it is missing or damaged."""
    path = cache / f"{network.sha256}.safetensors"
    if path.exists() and _digest(path.read_bytes()) == network.sha256:
        return path
    try:
        data = store.get(keys.model(manifest.name, manifest.version, network.file))
    except ObjectNotFound as error:
        raise ModelError(f"Model {manifest.name!r} {manifest.version} lacks {network.file}: {error}") from error
    _check(manifest, network, data)
    _write(path, data)
    return path


def _check(manifest: Manifest, network: Network, data: bytes) -> None:
    if _digest(data) != network.sha256:
        raise ModelError(
            f"{network.file} of model {manifest.name!r} {manifest.version} has SHA-256 {_digest(data)}, "
            f"but its manifest says {network.sha256}; push the model again."
        )


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all: several workers may share the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        temporary.write(data)
    os.replace(temporary.name, path)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
