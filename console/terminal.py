"""What the commands for operators share: tables that show text from outside as text, and a Redis that may be away."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from upres.client.text import printable
from upres.core.errors import UpresError
from upres.core.settings import Settings

if TYPE_CHECKING:
    from redis import Redis


def table(*columns: str) -> Table:
    """An empty one."""
    return Table(*columns, box=None, header_style="bold")


def row(table: Table, *cells: str) -> None:
    """A row of a table; text from outside is no markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))


def print_table(table: Table, otherwise: str) -> None:
    """The table, or what to say when it is empty; never cut, whatever the terminal's width."""
    if table.row_count:
        Console(width=max(Console().width, 160)).print(table)
    elif otherwise:
        print(otherwise)


@contextmanager
def connection() -> Iterator["Redis"]:
    """Redis, where UPRES_REDIS_URL says; what goes wrong inside the block ends the command with a sentence."""
    from redis.exceptions import RedisError

    from upres.core.queue import connect_quickly

    try:
        with connect_quickly(Settings.from_environment()) as redis:
            yield redis
    except RedisError as error:
        raise click.ClickException(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error
    except UpresError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
