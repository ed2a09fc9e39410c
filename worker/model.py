"""Pulls a model version from the registry, checks its digests, and caches its files on disk between starts."""

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
"""`prune` deletes cached files that were not used for this many days."""


class Model(NamedTuple):
    """A model version whose files are on this machine and have the digests in its manifest."""

    manifest: Manifest
    digest: str
    files: dict[str, Path]
    """Path of each file, by its name in the manifest."""
    bytes: int
    """Size of its networks' files, in bytes."""

    def __str__(self) -> str:
        return f"{self.manifest.name} {self.manifest.version}"


def pull(store: Store, name: str, version: str, cache: Path, digest: str | None = None) -> Model:
    """Get a version of a model from the cache or the registry, with this digest if one is given.

    Files are cached under their digest, so a restart downloads nothing, and every file is checked before it is used.
    Raises ModelNotFound; ModelError when it is damaged, has another digest or a newer schema; ModelUnavailable when it
    cannot be written to the cache; StoreUnavailable.
    """
    manifest, found = registry.manifest(store, name, version)
    if digest is not None and found != digest:
        raise ModelError(f"Model {name!r} {version} was changed in the store: it has digest {found}, not {digest}.")
    folder = cache.expanduser() / "models"
    return _model(manifest, found, {file.file: _file(store, manifest, file, folder) for file in manifest.files})


def open_folder(folder: Path) -> Model:
    """Open a model version in a folder on this machine, checked in the same way. Raises ModelError."""
    manifest, digest = registry.read_folder(folder)
    return _model(manifest, digest, {file.file: folder / file.file for file in manifest.files})


def prune(cache: Path) -> None:
    """Delete cached files, and networks converted from them, that were not used for CACHE_DAYS days."""
    for path in (*cache.expanduser().glob("models/*"), *cache.expanduser().glob("openvino/*")):
        with suppress(OSError):  # another worker has deleted it
            if time.time() - path.stat().st_mtime > CACHE_DAYS * 24 * 3600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def mark_used(path: Path) -> None:
    """Set the file's modification time to now, so that `prune` keeps it. A read-only cache is left as it is."""
    with suppress(OSError):
        path.touch()


def _model(manifest: Manifest, digest: str, files: dict[str, Path]) -> Model:
    return Model(manifest, digest, files, sum(files[one.file].stat().st_size for one in manifest.networks))


def _file(store: Store, manifest: Manifest, file: File, cache: Path) -> Path:
    """Return the path of the cached file with this digest. It is downloaded first if it is missing or damaged."""
    path = (cache / file.sha256).with_suffix(Path(file.file).suffix)
    with suppress(OSError):  # a file that cannot be read is downloaded
        if registry.digest(path.read_bytes()) == file.sha256:
            mark_used(path)
            return path
    log.info("model %s %s: downloading %s", manifest.name, manifest.version, file.file)
    try:
        data = store.get(keys.model(manifest.name, manifest.version, file.file), sha256=file.sha256)
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
    """Write a file atomically, because several workers may share the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        try:
            temporary.write(data)
            temporary.flush()
        except OSError:
            os.unlink(temporary.name)
            raise
    os.replace(temporary.name, path)
