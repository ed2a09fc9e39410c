"""Removes versions from the registry of models.

The index loses the version first, then its manifest is deleted, then its other files: so what is listed can be read,
and a removal that ended half way is repeated. Meanwhile the version's claim (pushed_files.py) says that it is removed.
"""

import logging
from collections.abc import Mapping, Sequence

from upres.core import guarded_writes, keys, registry
from upres.core.errors import ModelError, ModelNotFound
from upres.core.manifest import Labels
from upres.core.pushed_files import CLAIM, MANIFEST, REMOVED
from upres.core.registry import STABLE, Version
from upres.core.registry_changes import change_labels
from upres.core.registry_index import refresh_index
from upres.core.storage import Store

log = logging.getLogger("upres.registry")

AT_ONCE = 1000
"""Number of objects that S3 deletes with one request."""


def remove(store: Store, name: str, version: str, needed: Sequence[str] = (), force: bool = False) -> None:
    """Remove a version, or what a push or a removal that broke off has left of it.

    `needed` says what needs the version (model_uses.py); then it is removed only with `force`, and its labels with it.
    The last version takes the model along. Raises ModelNotFound; ModelError when the version is needed, or is stable
    while there are others; StoreUnavailable.
    """
    if not _files(store, name, version) and version not in _listed(store, name):
        raise ModelNotFound(f"Model {name!r} has no version {version!r}.")
    if needed and not force:
        raise ModelError(f"Model {name!r} {version} is not removed: {'; '.join(needed)}. Remove it anyway: --force")
    _let_go(store, name, version, force)
    claim = keys.model(name, version, CLAIM)
    guarded_writes.change(store, claim, lambda raw: REMOVED.encode())
    refresh_index(store, name, without=version)
    _delete_manifest(store, name, version, force)
    _delete(store, [file for file in _files(store, name, version) if file != claim])
    _delete(store, [claim])
    refresh_index(store, name)
    if left := _files(store, name, version):
        raise ModelError(f"The object store did not delete {len(left)} files of {name} {version}, {left[0]} for one.")


def _delete_manifest(store: Store, name: str, version: str, force: bool) -> None:
    """Delete the manifest, and put it back if the version has got a label meanwhile. Raises ModelError."""
    key = keys.model(name, version, MANIFEST)
    raw = store.get(key) if store.exists(key) else None
    _delete(store, [key])
    try:
        _let_go(store, name, version, force)
    except ModelError:
        if raw is not None:
            store.put(key, raw, "application/json")
            guarded_writes.change(store, keys.model(name, version, CLAIM), lambda _: registry.digest(raw).encode())
            refresh_index(store, name)
        raise


def _delete(store: Store, objects: Sequence[str]) -> None:
    for start in range(0, len(objects), AT_ONCE):
        store.delete(objects[start : start + AT_ONCE])


def prunable(
    store: Store, name: str, keep: int, needed: Mapping[str, Sequence[str]]
) -> list[tuple[str, Sequence[str]]]:
    """Return the versions of a model beside the `keep` newest, oldest first, each with what needs it.

    The newest have the latest date, among equal dates the greatest name, 10 after 9. Raises ModelNotFound, ModelError
    or StoreUnavailable.
    """
    registry.labels(store, name)
    oldest_first = sorted(_listed(store, name).values(), key=lambda one: (one.created, len(one.version), one.version))
    return [(one.version, needed.get(one.version, ())) for one in oldest_first[: max(0, len(oldest_first) - keep)]]


def _files(store: Store, name: str, version: str) -> list[str]:
    return list(store.listing(keys.model(name, version, "")))


def _listed(store: Store, name: str) -> dict[str, Version]:
    entry = registry.index(store).models.get(name)
    return {one.version: one for one in entry.versions} if entry else {}


def _let_go(store: Store, name: str, version: str, force: bool) -> None:
    """Take the version out of the labels, and out of those that rollback goes back to. Raises ModelError.

    It is looked at twice, before and after the manifest is deleted: a label that is set meanwhile is seen either here,
    or by the one who sets it (registry_changes.py).
    """
    try:
        now = registry.labels(store, name)
    except ModelNotFound:
        return
    if now.labels[STABLE] == version and force and not _others(store, name, version):
        store.delete([keys.labels(name)])
        return

    def decide(now: Labels) -> Mapping[str, object]:
        has = [label for label, meant in now.labels.items() if meant == version]
        if STABLE in has:
            raise ModelError(
                f"Model {name!r} {version} is its stable version; make another one stable first: "
                f"upres models label {name} stable=VERSION"
            )
        if has and not force:
            raise ModelError(f"Model {name!r} {version} is not removed: the label {has[0]} points to it.")
        kept = {label: meant for label, meant in now.labels.items() if meant != version}
        return now.model_dump() | {"labels": kept, "before": tuple(one for one in now.before if one != version)}

    change_labels(store, name, decide)


def _others(store: Store, name: str, version: str) -> bool:
    """Whether a model has another version."""
    return any(one.endswith(f"/{MANIFEST}") for one in store.listing(f"models/{name}/") if f"/{version}/" not in one)
