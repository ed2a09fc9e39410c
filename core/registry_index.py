"""The index of the registry, `models/index.json`, as a summary of the manifests and labels in the bucket.

Only the entry of the model that has changed is made anew. The others stay as they are stored, also those that a newer
release wrote.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from upres.core import guarded_writes, keys, pushed_files
from upres.core.errors import ModelError, ModelNotFound
from upres.core.manifest import Manifest
from upres.core.registry import Entry, Index, Version, labels, manifest, parse_index
from upres.core.storage import Store
from upres.core.tolerance import or_none

log = logging.getLogger("upres.registry")

REFRESHES = 3
"""Times that an entry is rebuilt at most, while others change the model's versions."""


def reindex(store: Store) -> Index:
    """Rebuild the index from all readable manifests and labels, for example after other tools changed the bucket.

    A model whose labels cannot be read keeps the entry that it had.
    """
    return parse_index(guarded_writes.change(store, keys.MODEL_INDEX, lambda raw: _rebuilt(store, _document(raw))))


def refresh_index(store: Store, name: str, without: str | None = None) -> None:
    """Rebuild the index's entry of one model from the bucket, without a version that is about to be removed.

    An index that is missing or cannot be read is rebuilt as a whole. When versions come or go meanwhile, it is done
    again: whoever changed them may have found nothing to write.
    """
    there: list[str] = []

    def make(raw: bytes | None) -> bytes:
        there[:] = _versions(store, name)
        document = _document(raw)
        if document is None:
            return _rebuilt(store, None, name, without)
        models = dict(document["models"])
        mine = models.pop(name, None)
        try:
            models[name] = _entry(store, name, or_none(Entry, json.dumps(mine)) if mine else None, without)
        except ModelNotFound:
            log.info("model %s is not there any more", name)
        return _dumped(document, models)

    for _ in range(REFRESHES):
        guarded_writes.change(store, keys.MODEL_INDEX, make)
        if there == _versions(store, name):
            return


def is_manifest(key: str) -> bool:
    """Whether an object's key is that of the manifest of a version."""
    return key.count("/") == 3 and key.endswith(f"/{pushed_files.MANIFEST}")


def _document(raw: bytes | None) -> dict[str, Any] | None:
    """Return the index as it is stored, an object with models by name; None when there is none, or it is no index."""
    with suppress(ValueError):
        found = from_json(raw or b"")
        if isinstance(found, dict) and isinstance(found.get("models"), dict):
            return found
    if raw:
        log.warning("%s cannot be read, and is rebuilt", keys.MODEL_INDEX)
    return None


def _dumped(document: Mapping[str, Any] | None, models: Mapping[str, Any]) -> bytes:
    """Write an index with these models, and all else that `document` has."""
    # Without default values: releases that know fewer fields of labels refuse those that they do not know.
    plain = {
        name: one.model_dump(mode="json", exclude_defaults=True) if isinstance(one, Entry) else one
        for name, one in sorted(models.items())
    }
    return json.dumps({**(document or {}), "models": plain}, ensure_ascii=False, separators=(",", ":")).encode()


def _rebuilt(
    store: Store, document: Mapping[str, Any] | None, changed: str | None = None, without: str | None = None
) -> bytes:
    names = {key.split("/")[1] for key in store.listing("models/") if key.endswith("/labels.json")}
    before = document["models"] if document else {}
    entries: dict[str, Any] = {}
    for name in names:
        try:
            entries[name] = _entry(store, name, None, without if name == changed else None)
        except (ModelError, ModelNotFound) as error:
            log.warning("%s", error)
            if name in before:
                entries[name] = before[name]
    return _dumped(document, entries)


def _versions(store: Store, name: str) -> list[str]:
    """Return the names of the versions of a model whose manifests are in the bucket."""
    return [key.split("/")[2] for key in store.listing(f"models/{name}/") if is_manifest(key)]


def _entry(store: Store, name: str, known: Entry | None, without: str | None) -> Entry:
    """Build a model's entry with all versions whose manifests can be read; versions in `known` are not read again."""
    before = {one.version: one for one in known.versions} if known else {}
    there = _versions(store, name)
    versions = {version: one for version, one in before.items() if version in there and version != without}
    for version in there:
        if version not in versions and version != without:
            try:
                versions[version] = _short(*manifest(store, name, version))
            except (ModelError, ModelNotFound) as error:
                log.warning("%s", error)
    newer = known.model_extra or {} if known else {}
    return Entry(**newer, name=name, labels=labels(store, name), versions=tuple(versions.values()))


def _short(manifest: Manifest, digest: str) -> Version:
    return Version(
        version=manifest.version,
        digest=digest,
        created=manifest.created,
        factors=manifest.factors,
        description=manifest.description,
        licence=manifest.licence,
        strength=manifest.mix.strength if manifest.mix else None,
    )
