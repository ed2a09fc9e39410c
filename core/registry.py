"""The registry of models in the object store: what there is, what labels mean, and how both change.

A version is written once, its manifest last, and never changed; labels say which one is served. So whoever reads a
manifest finds its files, and whoever has a digest has a model. `models/index.json` repeats what the manifests and
labels say, so that listing takes one request; nothing is served by it.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import Field, ValidationError

from core import keys
from core.errors import ModelError, ModelNotFound
from core.manifest import SCHEMA_VERSION, Labels, Manifest
from core.schema import Message
from core.storage import ObjectNotFound, Store

log = logging.getLogger("upres.registry")

STABLE, CANARY = "stable", "canary"
MOST_LOSS_DB = 0.1
BEFORE_MOST = 10
"""So many earlier stable versions are remembered for rollback."""


class Version(Message):
    """One version of a model, in short."""

    version: str = Field(description="Its name.")
    digest: str = Field(description="SHA-256 of its manifest, which pins its weights.")
    created: date = Field(description="Date of the weights.")
    factors: tuple[int, ...] = Field(description="Enlargements per side that it can make.")
    description: str = Field(description="What it is for.")
    licence: str = Field(description="SPDX identifier.")


class Entry(Message):
    """One model: what its labels mean, and which versions there are."""

    name: str = Field(description="Its name.")
    labels: Labels = Field(description="What they mean.")
    versions: tuple[Version, ...] = Field(description="Oldest first, as they were pushed.")


class Index(Message):
    """All models."""

    models: Mapping[str, Entry] = Field(description="By name.")


def index(store: Store) -> Index:
    """All models, by name. Raises StoreUnavailable."""
    try:
        return Index.model_validate_json(store.get(keys.MODEL_INDEX))
    except ObjectNotFound:
        return Index(models={})
    except ValidationError as error:
        raise ModelError(f"{keys.MODEL_INDEX} cannot be read; `upres models reindex` makes it anew.") from error


def labels(store: Store, name: str) -> Labels:
    """What a model's labels mean. Raises ModelNotFound, ModelError or StoreUnavailable."""
    try:
        return Labels.model_validate_json(store.get(keys.labels(name)))
    except ObjectNotFound:
        raise ModelNotFound(f"There is no model {name!r}; `upres models list` says which there are.") from None
    except ValidationError as error:
        raise ModelError(f"The labels of model {name!r} cannot be read: {_first(error)}") from error


def manifest(store: Store, name: str, version: str) -> tuple[Manifest, str]:
    """A version's manifest and its digest. Raises ModelNotFound, ModelError or StoreUnavailable."""
    try:
        raw = store.get(keys.model(name, version, "manifest.json"))
    except ObjectNotFound:
        raise ModelNotFound(f"Model {name!r} has no version {version!r}.") from None
    return parse(raw, f"{name} {version}"), digest(raw)


def parse(raw: bytes, what: str) -> Manifest:
    """A manifest. Raises ModelError, which names the field, or says that it is of another time."""
    try:
        fields = json.loads(raw)
        schema = fields.get("schema_version") if isinstance(fields, dict) else None
        if isinstance(schema, int) and schema != SCHEMA_VERSION:
            older = "an older" if schema < SCHEMA_VERSION else "a newer"
            raise ModelError(f"The manifest of {what} is of {older} upres (schema {schema}, here {SCHEMA_VERSION}).")
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise ModelError(f"The manifest of {what} cannot be read: {_first(error)}") from error
    except ValueError as error:
        raise ModelError(f"The manifest of {what} is no JSON ({error}).") from error


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal (FIPS 180-4)."""
    return hashlib.sha256(data).hexdigest()


def read_folder(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a version on this machine and its digest; all its files are checked. Raises ModelError."""
    try:
        raw = (folder / "manifest.json").read_bytes()
        found = parse(raw, str(folder))
        for file in found.files:
            check(found, file.file, (folder / file.file).read_bytes(), file.sha256)
    except OSError as error:
        raise ModelError(f"{error.filename}: {error.strerror}") from error
    return found, digest(raw)


def check(manifest: Manifest, file: str, data: bytes, sha256: str) -> None:
    """Raise ModelError when a file is not what its manifest names."""
    if digest(data) != sha256:
        raise ModelError(
            f"{file} of model {manifest.name!r} {manifest.version} has SHA-256 {digest(data)}, "
            f"but its manifest says {sha256}; push the model again."
        )


def push(store: Store, folder: Path) -> Manifest:
    """Put a version into the registry; the first of a model becomes its stable one.

    Files go first, the manifest last: nobody finds half a version. To push the same again does nothing. Raises
    ModelError for a damaged folder, or when there is such a version with other contents.
    """
    new, ours = read_folder(folder)
    try:
        _, theirs = manifest(store, new.name, new.version)
    except ModelNotFound:
        for file in new.files:
            store.put(keys.model(new.name, new.version, file.file), (folder / file.file).read_bytes())
        store.put(keys.model(new.name, new.version, "manifest.json"), (folder / "manifest.json").read_bytes())
    else:
        if theirs != ours:
            raise ModelError(
                f"Model {new.name!r} has a version {new.version!r} with other contents; versions never change, "
                "so give this one another name."
            )
    try:
        labels(store, new.name)
    except ModelNotFound:
        _put_labels(store, new.name, Labels(labels={STABLE: new.version}))
    _reindex(store, new.name, new, ours)
    return new


def fetch(store: Store, name: str, version: str, folder: Path) -> None:
    """A version from the registry into a folder. Raises ModelNotFound, ModelError or StoreUnavailable."""
    found, _ = manifest(store, name, version)
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("manifest.json", *(one.file for one in found.files)):
        (folder / file).write_bytes(store.get(keys.model(name, version, file)))
    read_folder(folder)


def set_label(store: Store, name: str, label: str, version: str | None) -> Labels:
    """Let a label mean a version from now on, or, with None, nothing. Raises ModelNotFound or ModelError."""
    before = labels(store, name)
    changed = {one: meant for one, meant in before.labels.items() if one != label}
    earlier = before.before
    if version is not None:
        meant, _ = manifest(store, name, version)
        if label == STABLE:
            _check_loss(meant)
        changed[label] = version
    elif label == STABLE:
        raise ModelError("There is always a stable version; name another one instead.")
    if label == STABLE and version != before.labels[STABLE]:
        earlier = (before.labels[STABLE], *earlier)[:BEFORE_MOST]
    return change(store, name, before.model_copy(update={"labels": changed, "before": earlier}))


def promote(store: Store, name: str) -> Labels:
    """Let stable mean what canary means, and canary nothing. Raises ModelNotFound or ModelError."""
    now = labels(store, name)
    if CANARY not in now.labels:
        raise ModelError(f"Model {name!r} has no canary.")
    _check_loss(manifest(store, name, now.labels[CANARY])[0])
    meant = {label: version for label, version in now.labels.items() if label != CANARY}
    earlier = (now.labels[STABLE], *now.before)[:BEFORE_MOST]
    return change(
        store, name, now.model_copy(update={"labels": meant | {STABLE: now.labels[CANARY]}, "before": earlier})
    )


def rollback(store: Store, name: str) -> Labels:
    """Let stable mean what it meant before, and give up the canary. Raises ModelNotFound or ModelError."""
    now = labels(store, name)
    if not now.before:
        raise ModelError(f"Model {name!r} had no stable version before {now.labels[STABLE]!r}.")
    meant = {label: version for label, version in now.labels.items() if label != CANARY}
    return change(
        store, name, now.model_copy(update={"labels": meant | {STABLE: now.before[0]}, "before": now.before[1:]})
    )


def change(store: Store, name: str, changed: Labels) -> Labels:
    """Write a model's labels."""
    checked = Labels.model_validate(changed.model_dump())
    _put_labels(store, name, checked)
    _reindex(store, name)
    return checked


def reindex(store: Store) -> Index:
    """Make the index anew from all manifests and labels that can be read: should somebody have changed the bucket."""
    entries: dict[str, Entry] = {}
    for key in store.listing("models/"):
        match key.split("/"):
            case [_, name, version, "manifest.json"]:
                try:
                    found, found_digest = manifest(store, name, version)
                    entry = entries.get(name) or Entry(name=name, labels=labels(store, name), versions=())
                except (ModelError, ModelNotFound) as error:
                    log.warning("%s", error)
                    continue
                entries[name] = entry.model_copy(update={"versions": (*entry.versions, _short(found, found_digest))})
    made = Index(models={name: _in_order(entry) for name, entry in entries.items()})
    store.put(keys.MODEL_INDEX, made.model_dump_json().encode(), "application/json")
    return made


def _check_loss(manifest: Manifest) -> None:
    lost = max(network.quality.get("psnr_loss_db", 0) for network in manifest.networks)
    if lost > MOST_LOSS_DB:
        raise ModelError(
            f"Model {manifest.name!r} {manifest.version} loses {lost:g} dB against the version it was made of; "
            f"more than {MOST_LOSS_DB:g}, and it is not served by default."
        )


def _in_order(entry: Entry) -> Entry:
    versions = sorted(entry.versions, key=lambda one: (one.created, one.version))
    return entry.model_copy(update={"versions": tuple(versions)})


def _short(manifest: Manifest, digest: str) -> Version:
    return Version(
        version=manifest.version,
        digest=digest,
        created=manifest.created,
        factors=manifest.factors,
        description=manifest.description,
        licence=manifest.licence,
    )


def _reindex(store: Store, name: str, added: Manifest | None = None, added_digest: str = "") -> None:
    known = index(store).models
    versions = known[name].versions if name in known else ()
    if added and all(one.version != added.version for one in versions):
        versions = (*versions, _short(added, added_digest))
    entry = Entry(name=name, labels=labels(store, name), versions=versions)
    made = Index(models=dict(sorted({**known, name: entry}.items())))
    store.put(keys.MODEL_INDEX, made.model_dump_json().encode(), "application/json")


def _put_labels(store: Store, name: str, changed: Labels) -> None:
    store.put(keys.labels(name), changed.model_dump_json(exclude_defaults=True).encode(), "application/json")


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
