"""Shared by the commands of `upres models`: the store, output folders, and error messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from pydantic import ValidationError

from upres.client.signals import stopped_by_signals
from upres.core import model_names, registry
from upres.core.errors import ModelNotFound, UpresError
from upres.core.manifest import Manifest
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.core.tolerance import first_problem
from upres.models import bundled
from upres.models.staging import staging


def empty_folder(folder: Path) -> Path:
    """Return the folder. Raises click.ClickException unless it is missing or empty, so that versions do not mix."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.ClickException(f"{folder} is there already; give another one with --out, or remove it.")
    return folder


@contextmanager
def new_version(folder: Path, name: str | None = None, version: str = "1") -> Iterator[Path]:
    """Yield the path of a folder to write a version in; it becomes `folder` when the block has ended.

    After an error, Ctrl-C or SIGTERM nothing is left. Raises click.ClickException when the block raises an error of
    upres, when no version can have these names, or when `folder` is not missing or empty.
    """
    with stopped_by_signals(), errors_as_messages():
        if name is not None:
            model_names.check_new(name, version)
        with staging(empty_folder(folder)) as made:
            yield made


def version_folder(name: str, temporary: Path) -> Path:
    """Return the folder of a version: the given one, that of the latest version of a bundled model, or a download.

    A model of the registry is downloaded, its stable version, into `temporary`. Raises an error of upres.
    """
    if Path(name).exists():
        return Path(name)
    if known := bundled.versions(name):
        return list(known.values())[-1]
    opened = Store(Settings.from_environment())
    registry.fetch(opened, name, registry.labels(opened, name).labels[registry.STABLE], temporary)
    return temporary


def is_served(opened: Store, folder: Path) -> bool:
    """Whether the registry has a stable version of the model in a version's folder. Raises an error of upres."""
    manifest, _ = registry.read_folder(folder)
    try:
        registry.manifest(opened, manifest.name, registry.labels(opened, manifest.name).labels[registry.STABLE])
    except ModelNotFound:
        return False
    return True


def fetch_base(opened: Store, mixed: Manifest, folder: Path) -> None:
    """Download the base of a version, if it has one, into its place in the version's folder."""
    if mixed.mix:
        registry.fetch(opened, mixed.mix.model, mixed.mix.version, folder / registry.BASE)


@contextmanager
def store() -> Iterator[Store]:
    """The object store. Raises click.ClickException when the block raises an error of upres."""
    with errors_as_messages():
        yield Store(Settings.from_environment())


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Raises click.ClickException when the block raises UpresError or pydantic.ValidationError."""
    try:
        yield
    except UpresError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    except ValidationError as error:
        raise click.ClickException(first_problem(error)) from error
