"""Shared by the commands of `upres models`: the store, output folders, and error messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from pydantic import ValidationError

from upres.core import registry
from upres.core.errors import UpresError
from upres.core.settings import Settings
from upres.core.storage import Store


def empty_folder(folder: Path) -> Path:
    """Return the folder. Raises click.ClickException unless it is missing or empty, so that versions do not mix."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.ClickException(f"{folder} is there already; give another one with --out, or remove it.")
    return folder


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
        raise click.ClickException(registry.first(error)) from error
