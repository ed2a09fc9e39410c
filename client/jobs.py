"""`upres jobs`: what operators ask and do. Talks to Redis itself, where UPRES_REDIS_URL says."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from redis import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core import deadletters, events, keys, workers
from core.errors import JobNotFound, UpresError
from core.queue import connect_quickly
from core.settings import Settings

HELP = """Look after the jobs of an upres: what waits, what runs, what died.

Without a command: how it stands. Needs access to Redis (UPRES_REDIS_URL)."""


@click.group(invoke_without_command=True, help=HELP)
@click.pass_context
def jobs(context: click.Context) -> None:
    """See HELP."""
    if context.invoked_subcommand is None:
        with connection() as redis:
            _overview(redis)


@jobs.command()
@click.option("--most", default=100, show_default=True, help="At most so many, the newest.")
def dead(most: int) -> None:
    """List dead letters: jobs whose workers died, or that failed for a reason nobody foresaw."""
    with connection() as redis:
        table = Table("job", "died", "code", "why", box=None, header_style="bold")
        for letter in deadletters.listing(redis, most):
            row(table, letter.job_id, f"{letter.at:%Y-%m-%d %H:%M:%S}", letter.code, letter.message)
        print_table(table, "There are no dead letters.")


@jobs.command()
@click.argument("job_id")
def show(job_id: str) -> None:
    """Show what a job asked for, and all its events."""
    with connection() as redis:
        told = events.read(redis, job_id)
        if not told:
            raise JobNotFound(f"There is no job {job_id!r}.")
        if redis.zscore(keys.DEAD, job_id) is not None:
            print(printable(deadletters.message_of(redis, job_id).model_dump_json(exclude_none=True, indent=2)))
        table = Table("at", "event", "details", box=None, header_style="bold")
        for _, event in told:
            details = event.model_dump(mode="json", exclude={"job_id", "at", "type", "result"}, exclude_defaults=True)
            row(table, f"{event.at:%H:%M:%S.%f}"[:-3], event.type, ", ".join(f"{k}={v}" for k, v in details.items()))
        print_table(table, "")


@jobs.command()
@click.argument("job_ids", nargs=-1, metavar="JOB_ID...")
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def replay(job_ids: tuple[str, ...], everything: bool) -> None:
    """Enqueue dead letters again, as new jobs; prints their ids."""
    _each(job_ids, everything, lambda redis, job_id: print(deadletters.replay(redis, job_id)))


@jobs.command()
@click.argument("job_ids", nargs=-1, metavar="JOB_ID...")
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def drop(job_ids: tuple[str, ...], everything: bool) -> None:
    """Forget dead letters."""
    _each(job_ids, everything, deadletters.drop)


def _each(job_ids: Iterable[str], everything: bool, do: Callable[[Redis, str], object]) -> None:
    """Each of the dead letters; those that cannot be done are told, and the exit code is 1."""
    with connection() as redis:
        if everything:
            job_ids = [letter.job_id for letter in deadletters.listing(redis, keys.DEAD_MOST)]
        elif not job_ids:
            raise click.UsageError("Name dead letters, or give --all.")
        failed = False
        for job_id in job_ids:
            try:
                do(redis, job_id)
            except UpresError as error:
                click.echo(printable(f"{job_id}: {error}"), err=True)
                failed = True
    sys.exit(failed)


def _overview(redis: Redis) -> None:
    running: Any = redis.zrange(keys.LEASES, 0, -1)
    print(f"waiting  {redis.llen(keys.WAITING)}")
    print(f"running  {len(running)}")
    print(f"dead     {redis.zcard(keys.DEAD)}")
    table = Table("worker", "state", "device", "model", "jobs", box=None, header_style="bold")
    for worker in workers.listing(redis):
        hands = f"{len(worker.jobs)} of {worker.slots}"
        row(table, worker.name, worker.state, worker.device, worker.model, "\n".join([hands, *worker.jobs]))
    print()
    print_table(table, "No worker is there.")


def row(table: Table, *cells: str) -> None:
    """A row of a table; text from outside is no markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))


def printable(text: str) -> str:
    """Text from outside, which does not speak to the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def print_table(table: Table, otherwise: str) -> None:
    """The table, or what to say when it is empty; never cut, whatever the terminal's width."""
    if table.row_count:
        Console(width=max(Console().width, 160)).print(table)
    elif otherwise:
        print(otherwise)


@contextmanager
def connection() -> Iterator[Redis]:
    """Redis, where UPRES_REDIS_URL says; what goes wrong inside the block ends the command with a sentence."""
    try:
        with connect_quickly(Settings.from_environment()) as redis:
            yield redis
    except RedisError as error:
        raise click.ClickException(f"Redis does not answer at UPRES_REDIS_URL ({error}).") from error
    except UpresError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
