"""A model version on this machine: pulled from the registry, checked by digest, kept on disk between starts."""

import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from upres.core import keys, registry
from upres.core.errors import ModelError, ModelUnavailable
from upres.core.manifest import File, Manifest
from upres.core.storage import ObjectNotFound, Store

log = logging.getLogger("upres.worker")

CACHE_DAYS = 30


class Model(NamedTuple):
    """A model version whose files lie on this machine and have the digests that its manifest names."""

    manifest: Manifest
    digest: str
    files: dict[str, Path]
    """By the name that the manifest gives them."""
    bytes: int
    """Size of its networks as they are stored."""

    def __str__(self) -> str:
        return f"{self.manifest.name} {self.manifest.version}"


def pull(store: Store, name: str, version: str, cache: Path, digest: str | None = None) -> Model:
    """A version of a model, which has to have the digest if one is given.

    Files are cached under their digest, so a restart costs no transfer and no file is trusted for its name. Raises
    ModelNotFound; ModelError when it is damaged or of a newer schema; ModelUnavailable when it cannot be kept;
    StoreUnavailable.
    """
    manifest, found = registry.manifest(store, name, version)
    if digest is not None and found != digest:
        raise ModelError(f"Model {name!r} {version} was changed in the store: it has digest {found}, not {digest}.")
    folder = cache.expanduser() / "models"
    return _model(manifest, found, {file.file: _file(store, manifest, file, folder) for file in manifest.files})


def open_folder(folder: Path) -> Model:
    """A model version that lies on this machine, checked in the same way."""
    manifest, digest = registry.read_folder(folder)
    return _model(manifest, digest, {file.file: folder / file.file for file in manifest.files})


def prune(cache: Path) -> None:
    """Delete what nobody has used for CACHE_DAYS: files of old versions, and what was made of them."""
    for path in (*cache.expanduser().glob("models/*"), *cache.expanduser().glob("openvino/*")):
        with suppress(OSError):  # another worker was faster
            if time.time() - path.stat().st_mtime > CACHE_DAYS * 24 * 3600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def note_use(path: Path) -> None:
    """See prune. A cache that may only be read is one too."""
    with suppress(OSError):
        path.touch()


def _model(manifest: Manifest, digest: str, files: dict[str, Path]) -> Model:
    return Model(manifest, digest, files, sum(files[one.file].stat().st_size for one in manifest.networks))


def _file(store: Store, manifest: Manifest, file: File, cache: Path) -> Path:
    """The cached file with this digest, fetched first when it is missing or damaged."""
    path = (cache / file.sha256).with_suffix(Path(file.file).suffix)
    with suppress(OSError):  # what cannot be read is fetched
        if registry.digest(path.read_bytes()) == file.sha256:
            note_use(path)
            return path
    try:
        data = store.get(keys.model(manifest.name, manifest.version, file.file))
    except ObjectNotFound as error:
        raise ModelError(f"Model {manifest.name!r} {manifest.version} lacks {file.file}: {error}") from error
    registry.check(manifest, file.file, data, file.sha256)
    try:
        _write(path, data)
    except OSError as error:
        log.error("%s cannot be kept in UPRES_CACHE_DIR, %s: %s", file.file, cache, error.strerror)
        raise ModelUnavailable(f"A worker has no room for model {manifest.name!r}; try again.") from error
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
