"""`upres jobs`: shows the queue, jobs and dead letters. Connects directly to Redis, at UPRES_REDIS_URL."""

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import click

from upres.console.terminal import connection, print_table, row, table
from upres.core import keys
from upres.core.errors import JobNotFound, JobRefused, UpresError, WorkerOutdated
from upres.core.foreign_text import printable

if TYPE_CHECKING:
    from redis import Redis

HELP = """Inspect jobs: waiting, running and dead ones.

Without a command: print an overview. Needs access to Redis (UPRES_REDIS_URL)."""
EPILOG = """\b
Examples:
  upres jobs                 count waiting, running and dead jobs
  upres jobs dead            list dead letters and their errors
  upres jobs show JOB_ID     print all events of a job
  upres jobs replay --all    submit all dead letters again
  upres jobs purge --older 2h
                             cancel jobs that have waited for two hours

\b
Exit codes: 0 success · 1 error · 2 wrong usage
"""


@click.group(invoke_without_command=True, help=HELP, epilog=EPILOG)
@click.pass_context
def jobs(context: click.Context) -> None:
    """See HELP."""
    if context.invoked_subcommand is None:
        with connection() as redis:
            _overview(redis)


@jobs.command()
@click.option("--most", default=100, show_default=True, help="Number of dead letters to list, newest first.")
def dead(most: int) -> None:
    """List dead letters.

    Dead letters are jobs whose workers died several times, or that failed with an unexpected error.
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
    """Show the events of a job, and for a dead letter its request."""
    from upres.core import events
    from upres.core.schema import UnknownEvent

    with connection() as redis:
        entries = events.read(redis, job_id)
        if not entries:
            raise JobNotFound(f"There is no job {job_id!r}.")
        if redis.zscore(keys.DEAD, job_id) is not None:
            print(_request(redis, job_id))
        listed = table("at", "event", "details")
        for _, event in entries:
            if isinstance(event, UnknownEvent):
                row(listed, "", printable(event.type), "written by another release; this one cannot read it")
                continue
            details = event.model_dump(mode="json", exclude={"job_id", "at", "type", "result"}, exclude_defaults=True)
            row(listed, f"{event.at:%H:%M:%S.%f}"[:-3], event.type, ", ".join(f"{k}={v}" for k, v in details.items()))
        print_table(listed, "")


def _request(redis: "Redis", job_id: str) -> str:
    """The request of a dead letter as JSON, as it is stored if a newer release wrote it; or why it cannot be read."""
    from upres.core import deadletters

    try:
        fields = deadletters.message_of(redis, job_id).model_dump(mode="json")
    except WorkerOutdated:
        fields = deadletters.fields_of(redis, job_id)
    except JobRefused as error:
        return str(error)
    shown = {name: value for name, value in fields.items() if value is not None}
    return printable(json.dumps(shown, indent=2, ensure_ascii=False), None, lines=True)


@jobs.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--all", "everything", is_flag=True, help="Replay all dead letters.")
def replay(job_ids: tuple[str, ...], everything: bool) -> None:
    """Submit dead letters again, as new jobs; print their ids."""
    from upres.core import deadletters

    _each(job_ids, everything, lambda redis, job_id: print(deadletters.replay(redis, job_id)))


@jobs.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--all", "everything", is_flag=True, help="Delete all dead letters.")
def drop(job_ids: tuple[str, ...], everything: bool) -> None:
    """Delete dead letters."""
    from upres.core import deadletters

    _each(job_ids, everything, deadletters.drop)


class Age(click.ParamType[float]):
    """A duration such as 90s, 30m, 2h or 1d; converted to seconds."""

    name = "age"
    seconds: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        if isinstance(value, float):
            return value
        number, unit = value[:-1], value[-1:].lower()
        if unit not in self.seconds or not number.isascii() or not number.isdecimal():
            self.fail(f"{value!r} is no age; give a number and a unit, such as 90s, 30m, 2h or 1d.", param, ctx)
        return float(int(number) * self.seconds[unit])


@jobs.command()
@click.option("--key", "owner", metavar="KEY_ID", help="Only jobs of this API key (see upres keys).")
@click.option("--older", "age", type=Age(), default=0.0, help="Only jobs accepted longer ago: 90s, 30m, 2h, 1d.")
@click.option("--running", is_flag=True, help="Also jobs that workers are doing now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(owner: str | None, age: float, running: bool, yes: bool) -> None:
    """Cancel all waiting jobs, or some of them.

    Each ends as `cancelled`, and whoever follows it hears of that. Use this instead of `rq empty`.
    """
    from upres.core import purge as purging

    with connection() as redis:
        chosen = purging.choose(redis, owner, age, running)
        if not chosen:
            print("There are no such jobs.")
            return
        if not yes:
            click.confirm(f"Cancel {len(chosen)} jobs?", abort=True)
        with click.progressbar(length=len(chosen), label="cancelling", file=sys.stderr) as bar:
            cancelled = 0
            for count in purging.cancel(redis, chosen):
                cancelled += count
                bar.update(min(purging.AT_ONCE, len(chosen) - bar.pos))
    print(f"{cancelled} jobs cancelled")


def _each(job_ids: Iterable[str], everything: bool, do: "Callable[[Redis, str], object]") -> None:
    """Call `do` for each dead letter. Prints errors to stderr; exits with 1 when at least one occurred."""
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
    if now.nowhere:
        print(f"nowhere  {now.nowhere}: another program took them from the queue; a worker puts them back")
    print(f"workers  {now.workers}, with {now.slots} slots (upres workers)")
