"""The registry of models in the object store: versions, labels, and the index. registry_changes.py writes them.

A version is written once, its manifest last, and never changed; so all files of a manifest exist, and a digest always
means the same files. Labels say which version is served. `models/index.json` is a summary of manifests and labels, so
that listing takes one request; it does not decide what is served.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_core import from_json

from upres.core import keys
from upres.core.errors import ModelError, ModelNotFound, ModelTooNew
from upres.core.foreign_text import printable
from upres.core.manifest import LABELS_SCHEMA, MAX_MANIFEST_BYTES, SCHEMA_VERSIONS, Labels, Manifest
from upres.core.model_files import check, check_size
from upres.core.schema import StoredModel, TolerantModel
from upres.core.storage import ObjectNotFound, Store
from upres.core.tolerance import first_problem, or_none

log = logging.getLogger("upres.registry")

STABLE, CANARY = "stable", "canary"
BASE = "base"
"""Folder, in that of a mixed version, with the version that it is mixed with."""


class Version(StoredModel):
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


class Entry(StoredModel):
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
        return parse_index(store.get(keys.MODEL_INDEX))
    except ObjectNotFound:
        return Index(models={})


def parse_index(raw: bytes) -> Index:
    """Parse the index, without entries that this release cannot read. Raises ModelError."""
    try:
        document = from_json(raw)
        entries = {name: or_none(Entry, json.dumps(entry)) for name, entry in document["models"].items()}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"{keys.MODEL_INDEX} cannot be read; `upres models reindex` rebuilds it.") from error
    return Index(models={name: entry for name, entry in entries.items() if entry})


def labels(store: Store, name: str) -> Labels:
    """Read the labels of a model. Raises ModelNotFound, ModelError or StoreUnavailable."""
    try:
        return parse_labels(store.get(keys.labels(name)), name)
    except ObjectNotFound:
        raise no_model(name) from None


def no_model(name: str) -> ModelNotFound:
    """Return the error that there is no model with this name."""
    return ModelNotFound(
        f"There is no model {name!r}; `upres models list` lists all models, and `upres models push {name}` adds it "
        "if it is part of upres."
    )


def parse_labels(raw: bytes, name: str) -> Labels:
    """Parse the labels of a model. Raises ModelError."""
    try:
        return Labels.model_validate_json(raw)
    except ValidationError as error:
        what = f"The labels of model {name!r} cannot be read: {first_problem(error)}"
        if (schema := _schema_version(raw)) > LABELS_SCHEMA:
            raise ModelTooNew(f"{what}. They are of a newer upres (schema {schema}, here {LABELS_SCHEMA}).") from error
        raise ModelError(what) from error


def _schema_version(raw: bytes) -> int:
    """Return the schema_version of a document; 0 when it has none."""
    with suppress(ValueError, AttributeError):
        found = from_json(raw).get("schema_version")
        return found if isinstance(found, int) else 0
    return 0


def manifest(store: Store, name: str, version: str) -> tuple[Manifest, str]:
    """Read the manifest of a version, and its digest. Raises ModelNotFound, ModelError or StoreUnavailable.

    One that names another model or version is refused: its folder was copied or renamed by hand.
    """
    try:
        raw = store.get(keys.model(name, version, "manifest.json"), MAX_MANIFEST_BYTES)
    except ObjectNotFound:
        raise ModelNotFound(f"Model {name!r} has no version {version!r}.") from None
    check_size(f"The manifest of {name} {version}", len(raw), MAX_MANIFEST_BYTES)
    found = parse(raw, f"{name} {version}")
    if (found.name, found.version) != (name, version):
        raise ModelError(
            f"The manifest of {name} {version} in the store is that of {found.name} {found.version}: the folder was "
            "copied or renamed by hand. Push the model under the name that it is to have."
        )
    return found, digest(raw)


def parse(raw: bytes, what: str) -> Manifest:
    """Parse a manifest. Raises ModelError, which names the invalid field, or says that the schema is older or newer."""
    try:
        fields = from_json(raw)
        schema = fields.get("schema_version") if isinstance(fields, dict) else None
        if isinstance(schema, int) and schema not in SCHEMA_VERSIONS:
            is_older = schema < min(SCHEMA_VERSIONS)
            kind, age = (ModelError, "an older") if is_older else (ModelTooNew, "a newer")
            raise kind(f"The manifest of {what} is of {age} upres (schema {schema}, here {max(SCHEMA_VERSIONS)}).")
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        if unknown := next((one for one in error.errors() if one["type"] == "extra_forbidden"), None):
            where = printable(".".join(map(str, unknown["loc"])))
            raise ModelTooNew(
                f"The manifest of {what} is of a newer upres: this release does not know {where}."
            ) from error
        raise ModelError(f"The manifest of {what} cannot be read: {first_problem(error)}") from error
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
