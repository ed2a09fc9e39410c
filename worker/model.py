"""A model version on this machine: pulled from the registry, checked by digest, kept on disk between starts."""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from core import keys, registry
from core.errors import ModelError
from core.manifest import File, Manifest
from core.storage import ObjectNotFound, Store


class Model(NamedTuple):
    """A model version whose files lie on this machine and have the digests that its manifest names."""

    manifest: Manifest
    digest: str
    files: dict[str, Path]
    """By the name that the manifest gives them."""

    @property
    def bytes(self) -> int:
        """Size of its networks as they are stored."""
        return sum(self.files[network.file].stat().st_size for network in self.manifest.networks)

    def __str__(self) -> str:
        return f"{self.manifest.name} {self.manifest.version}"


def pull(store: Store, name: str, version: str, cache: Path, digest: str | None = None) -> Model:
    """A version of a model, which has to have the digest if one is given.

    Files are cached under their digest, so a restart costs no transfer and no file is trusted for its name. Raises
    ModelError when it is missing, damaged, of a newer schema, or cannot be kept; StoreUnavailable.
    """
    manifest, found = registry.manifest(store, name, version)
    if digest is not None and found != digest:
        raise ModelError(f"Model {name!r} {version} was changed in the store: it has digest {found}, not {digest}.")
    folder = cache.expanduser() / "models"
    return Model(manifest, found, {file.file: _file(store, manifest, file, folder) for file in manifest.files})


def open_folder(folder: Path) -> Model:
    """A model version that lies on this machine, checked in the same way."""
    manifest, digest = registry.read_folder(folder)
    return Model(manifest, digest, {file.file: folder / file.file for file in manifest.files})


def _file(store: Store, manifest: Manifest, file: File, cache: Path) -> Path:
    """The cached file with this digest, fetched first when it is missing or damaged."""
    path = (cache / file.sha256).with_suffix(Path(file.file).suffix)
    if path.exists() and registry.digest(path.read_bytes()) == file.sha256:
        return path
    try:
        data = store.get(keys.model(manifest.name, manifest.version, file.file))
    except ObjectNotFound as error:
        raise ModelError(f"Model {manifest.name!r} {manifest.version} lacks {file.file}: {error}") from error
    registry.check(manifest, file.file, data, file.sha256)
    try:
        _write(path, data)
    except OSError as error:
        raise ModelError(f"{file.file} cannot be kept in UPRES_CACHE_DIR, {cache}: {error.strerror}.") from error
    return path


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all: several workers may share the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        try:
            temporary.write(data)
            temporary.flush()
        except OSError:
            os.unlink(temporary.name)
            raise
    os.replace(temporary.name, path)
