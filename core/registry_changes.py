"""Changes in the registry of models: new versions and labels. removal.py removes versions.

After each change the index's entry of the model is rebuilt (registry_index.py). Several processes may change one model
at once: labels and index are written by guarded_writes.py, which loses no change.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from upres.core import guarded_writes, keys, model_names, pushed_files, quality_gate
from upres.core.errors import ModelError, ModelNotFound, ModelTooNew
from upres.core.manifest import Labels, Manifest, Rule
from upres.core.registry import (
    CANARY,
    STABLE,
    base_folder,
    labels,
    manifest,
    no_model,
    parse_labels,
    read_folder,
)
from upres.core.registry_index import refresh_index
from upres.core.storage import Store
from upres.core.tolerance import first_problem

log = logging.getLogger("upres.registry")

MAX_BEFORE = 10
"""Number of earlier stable versions that are kept for rollback."""


def push(store: Store, folder: Path) -> Manifest:
    """Write a version into the registry, after its base. The first version of a model becomes its stable version.

    Pushing the same version again puts back what is missing or damaged in the store, and changes nothing else. Raises
    ModelError when the folder is damaged, when the registry has this version with other contents, or a label with its
    name; StoreUnavailable.
    """
    new, ours = read_folder(folder)
    model_names.check_new(new.name, new.version)
    _push_base(store, folder, new)
    _check_pushed(store, new)
    pushed_files.write(store, folder, new, ours)
    first_labels = _dumped(Labels(labels={STABLE: new.version}))
    guarded_writes.create(store, keys.labels(new.name), first_labels)
    refresh_index(store, new.name)
    return new


def _check_pushed(store: Store, new: Manifest) -> None:
    """Raise ModelError when a version cannot become stable, but would, or when a label has its name."""
    try:
        known = labels(store, new.name).labels
    except ModelNotFound:
        quality_gate.check(new)
        return
    if known.get(new.version, new.version) != new.version:
        raise ModelError(
            f"Model {new.name!r} has a label {new.version!r}, which means version {known[new.version]!r}; give the "
            "version another name."
        )


def _push_base(store: Store, folder: Path, mixed: Manifest) -> None:
    """Push the base of a version, if it is beside it; else the registry must have it. Raises ModelError."""
    if mixed.mix is None:
        return
    with suppress(ModelError):  # then it is in no folder, or in a damaged one
        base = base_folder(folder, mixed)
        if base and read_folder(base)[1] == mixed.mix.digest:
            push(store, base)
    try:
        found, theirs = manifest(store, mixed.mix.model, mixed.mix.version)
    except ModelNotFound:
        base = base_folder(folder, mixed)
        assert base
        found, theirs = read_folder(base)
    if theirs != mixed.mix.digest:
        raise ModelError(
            f"Model {mixed.name!r} {mixed.version} was made with another model {mixed.mix.model!r} {mixed.mix.version} "
            f"than the registry has, or its folder: {mixed.mix.digest}, not {theirs}."
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
    for label, version in changes.items():
        if version is not None:
            _check_new_label(store, name, label, version)

    def decide(now: Labels) -> Mapping[str, object]:
        updated = {label: version for label, version in {**now.labels, **changes}.items() if version is not None}
        if STABLE not in updated:
            raise ModelError("The label stable cannot be deleted; set it to another version.")
        fields = now.model_dump() | {"labels": updated, "before": _before(now, updated[STABLE])}
        if updated.get(CANARY) != now.labels.get(CANARY) or CANARY in changes:
            run_id = secrets.token_hex(4) if CANARY in updated else None
            fields |= {"canary_percent": Labels.model_fields["canary_percent"].default, "rule": None, "trial": run_id}
        fields |= {} if canary_percent is None else {"canary_percent": canary_percent}
        return fields | ({} if rule is None else {"rule": None if rule == "off" else rule})

    return change_labels(store, name, decide, changes.get(STABLE))


def _check_new_label(store: Store, name: str, label: str, version: str) -> None:
    """Raise ModelError or ModelNotFound when a label cannot be given to a version."""
    with suppress(ModelError):  # change_labels says what is wrong with labels that cannot be read
        labels(store, name)
    model_names.check_label(label)
    found, _ = manifest(store, name, version)
    if label == STABLE:
        quality_gate.check(found)
    if label != version and exists(store, name, label):
        raise ModelError(f"Model {name!r} has a version {label!r}; give the label another name.")


def exists(store: Store, name: str, version: str) -> bool:
    """Whether the registry has a version."""
    return store.exists(keys.model(name, version, pushed_files.MANIFEST))


def promote(store: Store, name: str, expected: str | None = None) -> Labels:
    """Make the canary the stable version, and delete the label canary.

    Raises ModelNotFound, or ModelError when there is no canary, or it is not the version `expected` (if given).
    """

    def decide(now: Labels) -> Mapping[str, object]:
        canary = now.labels.get(CANARY)
        if canary is None or expected not in (None, canary):
            raise ModelError(f"Model {name!r} has no canary{f' {expected}' if expected else ''}.")
        quality_gate.check(manifest(store, name, canary)[0])
        updated = {label: version for label, version in now.labels.items() if label != CANARY} | {STABLE: canary}
        return _without_canary(now) | {"labels": updated, "before": _before(now, canary)}

    return change_labels(store, name, decide)


def rollback(store: Store, name: str) -> Labels:
    """Make the previous stable version stable again, and delete label canary. Raises ModelNotFound or ModelError."""

    def decide(now: Labels) -> Mapping[str, object]:
        if not now.before:
            raise ModelError(f"Model {name!r} had no stable version before {now.labels[STABLE]!r}.")
        manifest(store, name, now.before[0])
        updated = {label: version for label, version in now.labels.items() if label != CANARY}
        fields = {"labels": updated | {STABLE: now.before[0]}, "before": now.before[1:]}
        return _without_canary(now) | fields

    return change_labels(store, name, decide)


def _without_canary(now: Labels) -> dict[str, object]:
    """The fields of labels without the settings of a canary; those of a newer release stay."""
    return now.model_dump(exclude={"canary_percent", "rule", "canary_run_id"})


def _before(now: Labels, stable: str) -> tuple[str, ...]:
    was = now.labels[STABLE]
    return now.before if stable == was else (was, *now.before)[:MAX_BEFORE]


def change_labels(
    store: Store, name: str, decide: Callable[[Labels], Mapping[str, object]], stable: str | None = None
) -> Labels:
    """Change the labels of a model to those that `decide` makes of the present ones, and refresh the index.

    `decide` may be called several times. Labels that cannot be read are made anew, with the version `stable`. Raises
    what `decide` raises, ModelNotFound, or ModelError, also for such labels without `stable`.
    """
    was: list[Labels] = []

    def make(raw: bytes | None) -> bytes:
        try:
            was[:] = [_present(raw, name)]
        except ModelTooNew:
            raise  # a newer release can read them
        except ModelError as error:
            if stable is None:
                raise ModelError(f"{error} `upres models label {name} stable=VERSION` makes them anew.") from error
            log.warning("%s They are made anew.", error)
            was[:] = [Labels(labels={STABLE: stable})]
        return _dumped(_validated(decide(was[0])))

    changed = parse_labels(guarded_writes.change(store, keys.labels(name), make), name)
    _undo_if_removed(store, name, was[0], changed)
    refresh_index(store, name)
    return changed


def _present(raw: bytes | None, name: str) -> Labels:
    if raw is None:
        raise no_model(name)
    return parse_labels(raw, name)


def _undo_if_removed(store: Store, name: str, was: Labels, changed: Labels) -> None:
    """Take labels back that a version got while it was removed; removal.py looks at labels after it removed one.

    Raises ModelNotFound.
    """
    for label, version in changed.labels.items() - was.labels.items():
        if exists(store, name, version):
            continue
        earlier = {label: was.labels[label]} if label in was.labels else {}

        def make(
            raw: bytes | None, label: str = label, version: str = version, earlier: dict[str, str] = earlier
        ) -> bytes:
            now = _present(raw, name)
            kept = {one: meant for one, meant in now.labels.items() if (one, meant) != (label, version)}
            return _dumped(_validated(now.model_dump() | {"labels": kept if label in kept else kept | earlier}))

        guarded_writes.change(store, keys.labels(name), make)
        refresh_index(store, name)
        raise ModelNotFound(f"Model {name!r} has no version {version!r}: it was removed, so {label} is as before.")


def _validated(fields: Mapping[str, object]) -> Labels:
    try:
        return Labels.model_validate(fields)
    except ValidationError as error:
        raise ModelError(f"These labels are not valid: {first_problem(error)}") from error


def _dumped(changed: Labels) -> bytes:
    return changed.model_dump_json(exclude_defaults=True).encode()
