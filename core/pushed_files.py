"""Writes the files of one version into the registry: all of them or none, of one folder, however often it is pushed.

A push first claims the version: it writes the digest of its manifest, if no other push has done so. Then it writes the
files, and last the manifest, without which no reader finds the version. So two folders are never mixed, and a push that
ended half way is repeated with the same folder.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from upres.core import guarded_writes, keys
from upres.core.errors import ModelError
from upres.core.manifest import MAX_MANIFEST_BYTES, Manifest
from upres.core.registry import digest, index
from upres.core.storage import ObjectNotFound, Store

log = logging.getLogger("upres.registry")

MANIFEST = "manifest.json"
CLAIM = "manifest.sha256"
"""Name of the object with the digest of the manifest, in hexadecimal. It stays there, so that a push can put a damaged
manifest right."""
REMOVED = "removed"
"""What the claim of a version says while removal.py removes it."""


def write(store: Store, folder: Path, new: Manifest, ours: str) -> None:
    """Write all files of a version, or put those right that are missing or damaged in the store.

    Raises ModelError when the registry has this version with other contents, or another push has claimed it.
    """
    known = _known(store, new) or ours
    claim_key = keys.model(new.name, new.version, CLAIM)
    if known == ours:
        known = _digest_in(guarded_writes.create(store, claim_key, ours.encode()))
    if known != ours:
        raise _refusal(store, new, known)
    is_there = _is_there(store, new)
    for file, most, sha256 in _files(new, ours):
        key = keys.model(new.name, new.version, file)
        if not _has(store, key, most, sha256):
            if is_there:
                log.warning("model %s %s: %s was missing or damaged, and is put back", new.name, new.version, file)
            kind = "application/json" if file == MANIFEST else "application/octet-stream"
            store.put(key, _checked(folder / file, sha256), kind)
    _check_claimed(store, new, ours)


def _checked(file: Path, sha256: str) -> bytes:
    """Read a file of the folder, which was checked before, again. Raises ModelError when it was changed since."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}") from error
    if digest(data) != sha256:
        raise ModelError(f"{file} was changed while it was pushed; push the folder again when nothing changes it.")
    return data


def _check_claimed(store: Store, new: Manifest, ours: str) -> None:
    """Raise ModelError when the version was removed while it was pushed: files of it may be missing."""
    if _claimed(store, new) != ours:
        store.delete([keys.model(new.name, new.version, MANIFEST)])
        raise _refusal(store, new, REMOVED)


def _claimed(store: Store, new: Manifest) -> str | None:
    try:
        return _digest_in(store.get(keys.model(new.name, new.version, CLAIM)))
    except ObjectNotFound:
        return None


def _files(new: Manifest, ours: str) -> Iterator[tuple[str, int, str]]:
    """Yield name, largest size in bytes and digest of each file of a version, the manifest last."""
    for file in new.files:
        yield file.file, file.most_bytes, file.sha256
    yield MANIFEST, MAX_MANIFEST_BYTES, ours


def _known(store: Store, new: Manifest) -> str | None:
    """Return the digest that the registry has for a version; None when nobody has pushed it yet.

    The claim says it, for versions that an older release pushed the index, or the manifest itself.
    """
    if claimed := _claimed(store, new):
        return claimed
    if new.name in (models := _listed(store)) and new.version in (versions := models[new.name]):
        return versions[new.version]
    try:
        return digest(store.get(keys.model(new.name, new.version, MANIFEST), MAX_MANIFEST_BYTES))
    except ObjectNotFound:
        return None


def _listed(store: Store) -> dict[str, dict[str, str]]:
    """Return the digests in the index, by model and version; empty when the index cannot be read."""
    try:
        found = index(store).models
    except ModelError as error:
        log.warning("%s", error)
        return {}
    return {name: {one.version: one.digest for one in entry.versions} for name, entry in found.items()}


def _digest_in(claim: bytes) -> str:
    return claim.decode(errors="replace").strip()


def _is_there(store: Store, new: Manifest) -> bool:
    return store.exists(keys.model(new.name, new.version, MANIFEST))


def _has(store: Store, key: str, most: int, sha256: str) -> bool:
    """Whether the store has a file with this digest."""
    try:
        return digest(store.get(key, most, sha256)) == sha256
    except ObjectNotFound:
        return False


def _refusal(store: Store, new: Manifest, known: str) -> ModelError:
    command = f"upres models remove {new.name} {new.version}"
    if known == REMOVED:
        return ModelError(
            f"Model {new.name!r} {new.version} is being removed; push it when that is done. If the removal broke off, "
            f"repeat it: {command}"
        )
    what = f"Model {new.name!r} has a version {new.version!r} with other contents"
    if _is_there(store, new):
        return ModelError(f"{what}; versions never change, so give this one another name.")
    return ModelError(
        f"{what}, whose push has not ended. Give this one another name. If that push broke off, repeat it, or remove "
        f"what it left: {command}"
    )
