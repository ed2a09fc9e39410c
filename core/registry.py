"""The registry of models in the object store: reading and writing of versions, labels and the index.

A version is written once, its manifest last, and never changed; so all files of a manifest exist, and a digest always
means the same files. Labels say which version is served. `models/index.json` is a summary of manifests and labels, so
that listing takes one request; it does not decide what is served.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from upres.core import keys
from upres.core.errors import ModelError, ModelNotFound
from upres.core.foreign_text import printable
from upres.core.manifest import MAX_MANIFEST_BYTES, SCHEMA_VERSIONS, Labels, Manifest, Rule
from upres.core.model_files import check, check_size
from upres.core.schema import TolerantModel
from upres.core.storage import ObjectNotFound, Store

log = logging.getLogger("upres.registry")

STABLE, CANARY = "stable", "canary"
BASE = "base"
"""Folder, in that of a mixed version, with the version that it is mixed with."""
MAX_LOSS_DB = 0.1
"""A version that loses more PSNR (in dB) than this against the version it was made of cannot become stable."""
MAX_BEFORE = 10
"""Number of earlier stable versions that are kept for rollback."""


class Version(TolerantModel):
    """The summary of one version of a model."""

    version: str = Field(description="Name of the version.")
    digest: str = Field(description="SHA-256 of the version's manifest, which lists the digests of all its files.")
    created: date = Field(description="Date of the weights.")
    factors: tuple[int, ...] = Field(description="Enlargements per side that the version can make.")
    description: str = Field(description="Purpose of the version.")
    licence: str = Field(description="SPDX identifier of the licence.")
    strength: float | None = Field(
        None, description="Default strength, 0 to 1; absent when the version's strength cannot be chosen."
    )


class Entry(TolerantModel):
    """One model in the index: its labels, and its versions, except those whose manifest cannot be read."""

    name: str = Field(description="Model name.")
    labels: Labels = Field(description="Labels of the model, and their settings.")
    versions: tuple[Version, ...] = Field(description="Versions in the order in which they were indexed.")

    @property
    def stable(self) -> Version | None:
        """The version with the label stable; None when its manifest cannot be read."""
        return next((one for one in self.versions if one.version == self.labels.labels[STABLE]), None)


class Index(TolerantModel):
    """The index of all models."""

    models: Mapping[str, Entry] = Field(description="Model name → model.")


def index(store: Store) -> Index:
    """Read the index; it is empty when the registry is. Raises ModelError or StoreUnavailable."""
    try:
        return Index.model_validate_json(store.get(keys.MODEL_INDEX))
    except ObjectNotFound:
        return Index(models={})
    except ValidationError as error:
        raise ModelError(f"{keys.MODEL_INDEX} cannot be read; `upres models reindex` rebuilds it.") from error


def labels(store: Store, name: str) -> Labels:
    """Read the labels of a model. Raises ModelNotFound, ModelError or StoreUnavailable."""
    try:
        return Labels.model_validate_json(store.get(keys.labels(name)))
    except ObjectNotFound:
        raise ModelNotFound(
            f"There is no model {name!r}; `upres models list` lists all models, and `upres models push {name}` adds it "
            "if it is part of upres."
        ) from None
    except ValidationError as error:
        raise ModelError(f"The labels of model {name!r} cannot be read: {first(error)}") from error


def manifest(store: Store, name: str, version: str) -> tuple[Manifest, str]:
    """Read the manifest of a version, and its digest. Raises ModelNotFound, ModelError or StoreUnavailable."""
    try:
        raw = store.get(keys.model(name, version, "manifest.json"), MAX_MANIFEST_BYTES)
    except ObjectNotFound:
        raise ModelNotFound(f"Model {name!r} has no version {version!r}.") from None
    check_size(f"The manifest of {name} {version}", len(raw), MAX_MANIFEST_BYTES)
    return parse(raw, f"{name} {version}"), digest(raw)


def parse(raw: bytes, what: str) -> Manifest:
    """Parse a manifest. Raises ModelError, which names the invalid field, or says that the schema is older or newer."""
    try:
        fields = json.loads(raw)
        schema = fields.get("schema_version") if isinstance(fields, dict) else None
        if isinstance(schema, int) and schema not in SCHEMA_VERSIONS:
            older = "an older" if schema < min(SCHEMA_VERSIONS) else "a newer"
            raise ModelError(
                f"The manifest of {what} is of {older} upres (schema {schema}, here {max(SCHEMA_VERSIONS)})."
            )
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise ModelError(f"The manifest of {what} cannot be read: {first(error)}") from error
    except ValueError as error:
        raise ModelError(f"The manifest of {what} is not valid JSON ({error}).") from error


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal (FIPS 180-4)."""
    return hashlib.sha256(data).hexdigest()


def read_folder(folder: Path) -> tuple[Manifest, str]:
    """Read the manifest of a version in a local folder, and its digest. Check all files. Raises ModelError."""
    try:
        check_size(str(folder / "manifest.json"), (folder / "manifest.json").stat().st_size, MAX_MANIFEST_BYTES)
        raw = (folder / "manifest.json").read_bytes()
        found = parse(raw, str(folder))
        for file in found.files:
            check_size(str(folder / file.file), (folder / file.file).stat().st_size, file.most_bytes)
            check(found, file.file, (folder / file.file).read_bytes(), file.sha256)
    except OSError as error:
        raise ModelError(f"{error.filename}: {error.strerror}") from error
    return found, digest(raw)


def base_folder(folder: Path, mixed: Manifest) -> Path | None:
    """Return the folder of a version's base; None without one. Raises ModelError when it is not there.

    The base is in the subfolder `base`, or both are in a tree like that of the registry, {name}/{version}.
    """
    if mixed.mix is None:
        return None
    inside, beside = folder / BASE, folder.absolute().parent.parent / mixed.mix.model / mixed.mix.version
    found = next((path for path in (inside, beside) if (path / "manifest.json").exists()), None)
    if found is None:
        raise ModelError(
            f"{folder} is mixed with model {mixed.mix.model!r} {mixed.mix.version}, which is neither in {inside} nor "
            f"in {beside}."
        )
    return found


def push(store: Store, folder: Path) -> Manifest:
    """Write a version into the registry, after its base. The first version of a model becomes its stable version.

    The manifest is written last, so that no reader finds an incomplete version. Pushing the same version again changes
    nothing. Raises ModelError when the folder is damaged, or the registry has this version with other contents.
    """
    new, ours = read_folder(folder)
    _push_base(store, folder, new)
    is_first = not store.exists(keys.labels(new.name))
    if is_first:
        _check_loss(new)
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
    if is_first:
        _put_labels(store, new.name, Labels(labels={STABLE: new.version}))
    _reindex(store, new.name)
    return new


def _push_base(store: Store, folder: Path, mixed: Manifest) -> None:
    """Write the base of a version into the registry if it is not there. Raises ModelError."""
    if mixed.mix is None:
        return
    try:
        found, theirs = manifest(store, mixed.mix.model, mixed.mix.version)
    except ModelNotFound:
        base = base_folder(folder, mixed)
        assert base
        found, theirs = push(store, base), read_folder(base)[1]
    if theirs != mixed.mix.digest:
        raise ModelError(
            f"Model {mixed.name!r} {mixed.version} was made with another model {mixed.mix.model!r} {mixed.mix.version} "
            f"than the registry has: {mixed.mix.digest}, not {theirs}."
        )
    mixed.check_base(found)


def fetch(store: Store, name: str, version: str, folder: Path) -> None:
    """Copy a version from the registry into a folder, with its base in the subfolder BASE.

    Raises ModelNotFound, ModelError or StoreUnavailable.
    """
    found, _ = manifest(store, name, version)
    folder.mkdir(parents=True, exist_ok=True)
    for file, most in (("manifest.json", MAX_MANIFEST_BYTES), *((one.file, one.most_bytes) for one in found.files)):
        data = store.get(keys.model(name, version, file), most)
        check_size(f"{file} of model {name} {version}", len(data), most)
        (folder / file).write_bytes(data)
    read_folder(folder)
    if found.mix:
        fetch(store, found.mix.model, found.mix.version, folder / BASE)


def relabel(
    store: Store,
    name: str,
    changes: Mapping[str, str | None],
    canary_percent: float | None = None,
    rule: Rule | Literal["off"] | None = None,
) -> Labels:
    """Change labels (label → version; None deletes the label): all of them, or none when one is refused.

    A new canary has the default share and no rule, unless they are given. Raises ModelNotFound or ModelError.
    """
    now = labels(store, name)
    updated = {label: version for label, version in {**now.labels, **changes}.items() if version is not None}
    if STABLE not in updated:
        raise ModelError("The label stable cannot be deleted; set it to another version.")
    for label, version in changes.items():
        if version is not None:
            found, _ = manifest(store, name, version)
            if label == STABLE:
                _check_loss(found)
    fields = now.model_dump() | {"labels": updated, "before": _before(now, updated[STABLE])}
    if updated.get(CANARY) != now.labels.get(CANARY) or CANARY in changes:
        run_id = secrets.token_hex(4) if CANARY in updated else None
        fields |= {"canary_percent": Labels.model_fields["canary_percent"].default, "rule": None, "trial": run_id}
    fields |= {} if canary_percent is None else {"canary_percent": canary_percent}
    fields |= {} if rule is None else {"rule": None if rule == "off" else rule}
    return _write(store, name, fields)


def promote(store: Store, name: str, expected: str | None = None) -> Labels:
    """Make the canary the stable version, and delete the label canary.

    Raises ModelNotFound, or ModelError when there is no canary, or it is not the version `expected` (if given).
    """
    now = labels(store, name)
    canary = now.labels.get(CANARY)
    if canary is None or expected not in (None, canary):
        raise ModelError(f"Model {name!r} has no canary{f' {expected}' if expected else ''}.")
    return relabel(store, name, {STABLE: canary, CANARY: None})


def rollback(store: Store, name: str) -> Labels:
    """Make the previous stable version stable again, and delete label canary. Raises ModelNotFound or ModelError."""
    now = labels(store, name)
    if not now.before:
        raise ModelError(f"Model {name!r} had no stable version before {now.labels[STABLE]!r}.")
    manifest(store, name, now.before[0])
    updated = {label: version for label, version in now.labels.items() if label != CANARY} | {STABLE: now.before[0]}
    return _write(store, name, {"labels": updated, "before": now.before[1:]})


def _before(now: Labels, stable: str) -> tuple[str, ...]:
    was = now.labels[STABLE]
    return now.before if stable == was else (was, *now.before)[:MAX_BEFORE]


def _write(store: Store, name: str, fields: Mapping[str, object]) -> Labels:
    try:
        changed = Labels.model_validate(fields)
    except ValidationError as error:
        raise ModelError(f"These labels are not valid: {first(error)}") from error
    _put_labels(store, name, changed)
    _reindex(store, name)
    return changed


def reindex(store: Store) -> Index:
    """Rebuild the index from all readable manifests and labels, for example after other tools changed the bucket."""
    names = {key.split("/")[1] for key in store.listing("models/") if key.endswith("/labels.json")}
    entries = {}
    for name in sorted(names):
        try:
            entries[name] = _entry(store, name, None)
        except (ModelError, ModelNotFound) as error:
            log.warning("%s", error)
    made = Index(models=entries)
    store.put(keys.MODEL_INDEX, made.model_dump_json().encode(), "application/json")
    return made


def _check_loss(manifest: Manifest) -> None:
    lost = max(network.quality.get("psnr_loss_db", 0) for network in manifest.networks)
    if lost > MAX_LOSS_DB:
        raise ModelError(
            f"Model {manifest.name!r} {manifest.version} loses {lost:g} dB against the version it was made of; "
            f"with more than {MAX_LOSS_DB:g} dB it cannot become stable."
        )


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


def _reindex(store: Store, name: str) -> None:
    """Rebuild the index's entry of one model from the bucket; so concurrent pushes of one model lose no version."""
    known = index(store).models
    models = {**known, name: _entry(store, name, known.get(name))}
    made = Index(models=dict(sorted(models.items())))
    store.put(keys.MODEL_INDEX, made.model_dump_json().encode(), "application/json")


def _entry(store: Store, name: str, known: Entry | None) -> Entry:
    """Build a model's entry with all versions whose manifests can be read; versions in `known` are not read again."""
    versions = {one.version: one for one in known.versions} if known else {}
    for key in store.listing(f"models/{name}/"):
        match key.split("/"):
            case [_, _, version, "manifest.json"] if version not in versions:
                try:
                    versions[version] = _short(*manifest(store, name, version))
                except (ModelError, ModelNotFound) as error:
                    log.warning("%s", error)
    return Entry(name=name, labels=labels(store, name), versions=tuple(versions.values()))


def _put_labels(store: Store, name: str, changed: Labels) -> None:
    store.put(keys.labels(name), changed.model_dump_json(exclude_defaults=True).encode(), "application/json")


def first(error: ValidationError) -> str:
    """Return the first problem of a pydantic ValidationError as one line."""
    problem = error.errors()[0]
    return printable(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}")
