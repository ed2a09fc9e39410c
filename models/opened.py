"""What the commands share: the store, folders, and errors as sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from pydantic import ValidationError

from upres.core import registry
from upres.core.errors import UpresError
from upres.core.settings import Settings
from upres.core.storage import Store


def fresh(folder: Path) -> Path:
    """A folder that is to be made. Raises ClickException when there is something in it: a version is of one piece."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.ClickException(f"{folder} is there already; give another one with --out, or remove it.")
    return folder


@contextmanager
def store() -> Iterator[Store]:
    """The object store; what goes wrong inside the block ends the command with a sentence."""
    with explained():
        yield Store(Settings.from_environment())


@contextmanager
def explained() -> Iterator[None]:
    """What goes wrong inside the block ends the command with a sentence."""
    try:
        yield
    except UpresError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    except ValidationError as error:
        raise click.ClickException(registry.first(error)) from error
