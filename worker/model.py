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
from upres.core.errors import ModelError, ModelNotFound, ModelUnavailable
from upres.core.manifest import File, Manifest, Network
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
    base: "Model | None" = None
    """The version that it is mixed with."""
    strength: float | None = None
    """Strength of the mix, 0 to 1; None without a base."""

    def __str__(self) -> str:
        at = "" if self.is_default else f" at strength {self.strength}"
        return f"{self.manifest.name} {self.manifest.version}{at}"

    def at(self, strength: float | None) -> "Model":
        """Return the model with another strength; None: its default. Raises ModelError when it has no base."""
        if strength is not None and self.base is None:
            raise ModelError(f"Model {self} has no base to be mixed with.")
        return self if strength is None else self._replace(strength=strength)

    @property
    def is_default(self) -> bool:
        """Whether the model has its default strength, or no base."""
        return not self.manifest.mix or self.strength == self.manifest.mix.strength

    @property
    def key(self) -> str:
        """What determines the results: the digest, followed by the strength if that is not the default."""
        return variant(self.digest, None if self.is_default else self.strength)

    def base_network(self, network: Network) -> Network:
        """Return the base's network for the same factor."""
        assert self.base
        return next(one for one in self.base.manifest.networks if one.factor == network.factor)


def variant(digest: str, strength: float | None) -> str:
    """Return the key of a version with a strength; None: its default."""
    return digest if strength is None else f"{digest}@{strength}"


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
    files = {file.file: _file(store, manifest, file, disk) for file in manifest.files}
    return _model(manifest, found, files, _pulled_base(store, manifest, cache, temporary))


def open_folder(folder: Path) -> Model:
    """Open a model version in a folder on this machine, checked in the same way. Raises ModelError."""
    manifest, digest = registry.read_folder(folder)
    files = {file.file: folder / file.file for file in manifest.files}
    base = registry.base_folder(folder, manifest)
    return _model(manifest, digest, files, open_folder(base) if base else None)


def _pulled_base(store: Store, mixed: Manifest, cache: Path | None, temporary: ExitStack | None) -> Model | None:
    """Pull the base of a version; None without one."""
    if mixed.mix is None:
        return None
    try:
        return pull(store, mixed.mix.model, mixed.mix.version, cache, mixed.mix.digest, temporary)
    except ModelNotFound as error:
        raise ModelError(f"Model {mixed.name!r} {mixed.version} lacks its base: {error}") from error


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


def _model(manifest: Manifest, digest: str, files: dict[str, Path], base: Model | None) -> Model:
    """Make a Model with its default strength. Raises ModelError when it cannot be mixed with its base."""
    size = sum(files[one.file].stat().st_size for one in manifest.networks)
    if manifest.mix is None or base is None:
        return Model(manifest, digest, files, size)
    if base.digest != manifest.mix.digest:
        raise ModelError(f"{base} is not the version that {manifest.name} {manifest.version} was made with.")
    manifest.check_base(base.manifest)
    return Model(manifest, digest, files, size, base, manifest.mix.strength)


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
