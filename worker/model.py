"""Pulls a model version from the registry, checks its digests, and caches its files on disk between starts."""

import errno
import logging
import os
import secrets
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from upres.core import keys, registry
from upres.core.errors import ModelError, ModelUnavailable
from upres.core.manifest import File, Manifest
from upres.core.model_files import check, check_network, check_size
from upres.core.storage import ObjectNotFound, Store

log = logging.getLogger("upres.worker")

CACHE_DAYS = 30
"""`prune` deletes cached files that were not used for this many days."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, of a user's quota, and of a limit on the size of files."""


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


def pull(
    store: Store,
    name: str,
    version: str,
    cache: Path | None,
    digest: str | None = None,
    temporary: ExitStack | None = None,
) -> Model:
    """Get a version of a model from the cache or the registry, with this digest if one is given.

    Files are cached under their digest, so a restart downloads nothing, and every file is checked before it is used.
    Files that `cache` cannot keep are in a temporary folder until the caller closes `temporary`. Raises ModelNotFound;
    ModelError when it is damaged, has another digest or a newer schema; ModelUnavailable when its files can be written
    nowhere; StoreUnavailable.
    """
    manifest, found = registry.manifest(store, name, version)
    if digest is not None and found != digest:
        raise ModelError(f"Model {name!r} {version} was changed in the store: it has digest {found}, not {digest}.")
    disk = _Disk(cache, temporary)
    return _model(manifest, found, {file.file: _file(store, manifest, file, disk) for file in manifest.files})


def open_folder(folder: Path) -> Model:
    """Open a model version in a folder on this machine, checked in the same way. Raises ModelError."""
    manifest, digest = registry.read_folder(folder)
    return _model(manifest, digest, {file.file: folder / file.file for file in manifest.files})


def prune(cache: Path) -> None:
    """Delete cached files, and networks converted from them, that were not used for CACHE_DAYS days."""
    for path in (*cache.glob("models/*"), *cache.glob("openvino/*")):
        with suppress(OSError):  # another worker has deleted it
            if time.time() - path.stat().st_mtime > CACHE_DAYS * 24 * 3600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def mark_used(path: Path) -> None:
    """Set the file's modification time to now, so that `prune` keeps it. A read-only cache is left as it is."""
    with suppress(OSError):
        path.touch()


def _model(manifest: Manifest, digest: str, files: dict[str, Path]) -> Model:
    return Model(manifest, digest, files, sum(files[one.file].stat().st_size for one in manifest.networks))


def _file(store: Store, manifest: Manifest, file: File, disk: "_Disk") -> Path:
    """Return the path of the cached file with this digest. It is downloaded first if it is missing or damaged."""
    name = file.sha256 + Path(file.file).suffix
    if path := disk.find(name, file.sha256):
        if path.suffix != ".png":
            check_network(file.file, path.read_bytes())  # an older release may have cached it
        return path
    log.info("model %s %s: downloading %s", manifest.name, manifest.version, file.file)
    try:
        data = store.get(keys.model(manifest.name, manifest.version, file.file), file.most_bytes, file.sha256)
    except ObjectNotFound as error:
        raise ModelError(f"Model {manifest.name!r} {manifest.version} lacks {file.file}: {error}") from error
    check_size(f"{file.file} of model {manifest.name} {manifest.version}", len(data), file.most_bytes)
    check(manifest, file.file, data, file.sha256)
    try:
        return disk.keep(name, data)
    except OSError as error:
        reason = "has no room for" if error.errno in FULL else "cannot write the files of"
        raise ModelUnavailable(f"A worker {reason} model {manifest.name!r}; try again.") from error


class _Disk:
    """Where the files of one model are written: in the cache; when that fails, in a temporary folder."""

    def __init__(self, cache: Path | None, temporary: ExitStack | None) -> None:
        self._cache = cache and cache / "models"
        self._folder, self._temporary = self._cache, temporary

    def find(self, name: str, sha256: str) -> Path | None:
        """Return the path of a cached file with this digest; None without one, or if it cannot be read."""
        with suppress(OSError):
            if self._cache and registry.digest((self._cache / name).read_bytes()) == sha256:
                mark_used(self._cache / name)
                return self._cache / name
        return None

    def keep(self, name: str, data: bytes) -> Path:
        """Write a file and return its path. Raises OSError when no folder takes it."""
        try:
            if self._folder:
                return _write(self._folder / name, data)
        except OSError as error:
            log.error("UPRES_CACHE_DIR: model files cannot be kept in %s: %s", self._folder, error.strerror)
            if self._temporary is None:
                raise
        if self._temporary is None:
            raise OSError(errno.ENOENT, "there is no folder for model files")
        self._folder = Path(self._temporary.enter_context(tempfile.TemporaryDirectory(prefix="upres-")))
        self._temporary = None
        return self.keep(name, data)


def _write(path: Path, data: bytes) -> Path:
    """Write a file atomically, because several workers may share the cache, with the permissions of the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of `tempfile` could be read by this user only, but workers of other users may share the cache.
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError:
        with suppress(OSError):  # it could not even be made
            part.unlink()
        raise
    return path
