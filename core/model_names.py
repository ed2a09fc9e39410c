"""Names of models, versions and labels: which are valid, and which a new one may have."""

import re

from pydantic import TypeAdapter, ValidationError

from upres.core.errors import ModelError, ModelNotFound
from upres.core.manifest import LabelName
from upres.core.schema import ModelName, VersionName

_MODEL: TypeAdapter[str] = TypeAdapter(ModelName)
_VERSION: TypeAdapter[str] = TypeAdapter(VersionName)
_LABEL: TypeAdapter[str] = TypeAdapter(LabelName)
_LIKE_A_VERSION = re.compile(r"v?[0-9][a-z0-9-]*")
RESERVED = ("stable", "canary", "labels.json")
"""Names that no version can have: two labels, and the object beside the versions' folders."""
INDEX = "index.json"
"""Name of the object beside the models' folders; no model can have it."""


def check(name: str, version: str | None = None) -> None:
    """Check a name of a model, and of a version, before it becomes part of a key. Raises ModelNotFound.

    No model or version can have another name, so a caller that looks for one need not ask the store.
    """
    _check(_MODEL, name, "model", "lower-case letters, digits, dots, hyphens and underscores")
    if version is not None:
        _check(_VERSION, version, "version", "letters, digits, dots, hyphens and underscores")


def _check(adapter: TypeAdapter[str], given: str, what: str, form: str) -> None:
    try:
        adapter.validate_python(given)
    except ValidationError as error:
        raise ModelNotFound(
            f"{given[:80]!r} is no name of a {what}: these are of 1 to 64 {form}, and begin with a letter or a digit."
        ) from error


def check_new(name: str, version: str) -> None:
    """Raise ModelError when a new version cannot have these names, because they mean something else."""
    check(name, version)
    if name == INDEX:
        raise ModelError(f"No model can be called {name}: the list of all models has this name.")
    if version in RESERVED:
        raise ModelError(f"No version can be called {version!r}; call it 1 or 2-int8, for example.")


def check_label(label: str) -> None:
    """Raise ModelError when no label can be called so.

    One that is called like a version would hide that version: jobs that name it would get another one.
    """
    try:
        _LABEL.validate_python(label)
    except ValidationError as error:
        raise ModelError(
            f"These labels are not valid: {label[:80]!r} is none; a label is of 1 to 32 lower-case letters, digits and "
            "hyphens, and begins with a letter."
        ) from error
    if _LIKE_A_VERSION.fullmatch(label):
        raise ModelError(f"The label {label!r} looks like a version; give it a name, such as best.")
