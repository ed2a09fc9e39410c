"""`upres jobs`: what operators ask and do. Talks to Redis itself, where UPRES_REDIS_URL says."""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from upres.client.text import printable
from upres.console.terminal import connection, print_table, row, table
from upres.core import keys
from upres.core.errors import JobNotFound, UpresError

if TYPE_CHECKING:
    from redis import Redis

HELP = """Look after jobs: what waits, what runs, what died.

Without a command: how it stands. Needs access to Redis (UPRES_REDIS_URL)."""
EPILOG = """\b
Examples:
  upres jobs                 how many wait, run, and died
  upres jobs dead            what died, and why
  upres jobs show JOB_ID     everything that happened to a job
  upres jobs replay --all    try again what died

\b
Exit codes: 0 done · 1 something was not · 2 wrong usage
"""


@click.group(invoke_without_command=True, help=HELP, epilog=EPILOG)
@click.pass_context
def jobs(context: click.Context) -> None:
    """See HELP."""
    if context.invoked_subcommand is None:
        with connection() as redis:
            _overview(redis)


@jobs.command()
@click.option("--most", default=100, show_default=True, help="At most so many, the newest.")
def dead(most: int) -> None:
    """List dead letters.

    These are jobs whose workers died, or that failed for a reason nobody foresaw.
    """
    from upres.core import deadletters

    with connection() as redis:
        listed = table("job", "died", "code", "why")
        for letter in deadletters.listing(redis, most):
            row(listed, letter.job_id, f"{letter.at:%Y-%m-%d %H:%M:%S}", letter.code, letter.message)
        print_table(listed, "There are no dead letters.")


@jobs.command()
@click.argument("job_id")
def show(job_id: str) -> None:
    """Show what a job asked for, and all its events."""
    from upres.core import deadletters, events

    with connection() as redis:
        entries = events.read(redis, job_id)
        if not entries:
            raise JobNotFound(f"There is no job {job_id!r}.")
        if redis.zscore(keys.DEAD, job_id) is not None:
            print(printable(deadletters.message_of(redis, job_id).model_dump_json(exclude_none=True, indent=2)))
        listed = table("at", "event", "details")
        for _, event in entries:
            details = event.model_dump(mode="json", exclude={"job_id", "at", "type", "result"}, exclude_defaults=True)
            row(listed, f"{event.at:%H:%M:%S.%f}"[:-3], event.type, ", ".join(f"{k}={v}" for k, v in details.items()))
        print_table(listed, "")


@jobs.command()
@click.argument("job_ids", nargs=-1, metavar="JOB_ID...")
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def replay(job_ids: tuple[str, ...], everything: bool) -> None:
    """Enqueue dead letters again, as new jobs; prints their ids."""
    from upres.core import deadletters

    _each(job_ids, everything, lambda redis, job_id: print(deadletters.replay(redis, job_id)))


@jobs.command()
@click.argument("job_ids", nargs=-1, metavar="JOB_ID...")
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def drop(job_ids: tuple[str, ...], everything: bool) -> None:
    """Forget dead letters."""
    from upres.core import deadletters

    _each(job_ids, everything, deadletters.drop)


def _each(job_ids: Iterable[str], everything: bool, do: "Callable[[Redis, str], object]") -> None:
    """Each of the dead letters; those that cannot be done are told, and the exit code is 1."""
    from upres.core import deadletters

    with connection() as redis:
        if everything:
            job_ids = [letter.job_id for letter in deadletters.listing(redis, keys.MAX_DEAD_LETTERS)]
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


def _overview(redis: "Redis") -> None:
    from upres.core import backlog

    now = backlog.read(redis)
    since = f", the oldest for {now.oldest_seconds:.0f} s" if now.waiting else ""
    print(f"waiting  {now.waiting}{since}")
    print(f"running  {now.running}")
    print(f"dead     {now.dead}")
    print(f"workers  {now.workers}, with {now.slots} slots (upres workers)")
