"""Changes in the registry of models: new versions, labels, and the index.

The manifest of a version is written last, so that no reader finds an incomplete version. After each change the index's
entry of the model is rebuilt from the bucket.
"""

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from upres.core import keys
from upres.core.errors import ModelError, ModelNotFound
from upres.core.manifest import Labels, Manifest, Rule
from upres.core.registry import (
    CANARY,
    STABLE,
    Entry,
    Index,
    Version,
    base_folder,
    first,
    index,
    labels,
    manifest,
    read_folder,
)
from upres.core.storage import Store

log = logging.getLogger("upres.registry")

MAX_LOSS_DB = 0.1
"""A version that loses more PSNR (in dB) than this against the version it was made of cannot become stable."""
MAX_BEFORE = 10
"""Number of earlier stable versions that are kept for rollback."""


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
