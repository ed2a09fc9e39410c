"""Shared by the operators' commands: tables that do not interpret untrusted text, and the connection to Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from upres.core.errors import UpresError
from upres.core.foreign_text import printable
from upres.core.settings import Settings

if TYPE_CHECKING:
    from redis import Redis


def table(*columns: str) -> Table:
    """An empty table with these column names."""
    return Table(*columns, box=None, header_style="bold")


def row(table: Table, *cells: str) -> None:
    """Add a row. Cells are shown as plain text: markup and control characters in them have no effect."""
    table.add_row(*(Text(printable(cell, None, lines=True)) for cell in cells))


def print_table(table: Table, otherwise: str) -> None:
    """Print the table, or `otherwise` when it is empty. It is at least 160 columns wide, even in a narrow terminal."""
    if table.row_count:
        Console(width=max(Console().width, 160)).print(table)
    elif otherwise:
        print(otherwise)


@contextmanager
def connection() -> Iterator["Redis"]:
    """A connection to Redis at UPRES_REDIS_URL. Raises click.ClickException when the block raises an error."""
    from redis.exceptions import RedisError

    from upres.core.queue import connect_with_timeout

    try:
        with connect_with_timeout(Settings.from_environment()) as redis:
            yield redis
    except RedisError as error:
        raise click.ClickException(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error
    except UpresError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
