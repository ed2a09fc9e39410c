"""`upres keys`: who may use an upres. Talks to Redis itself, where UPRES_REDIS_URL says."""

import click
from pydantic import ValidationError

from upres.console.terminal import connection, print_table, row, table

HELP = """Look after API keys: who may, and how much.

Without a command: all of them. They are asked for where UPRES_ACCESS=keys. Needs access to Redis (UPRES_REDIS_URL)."""


EPILOG = """\b
Examples:
  upres keys                               who may, and how much
  upres keys create "Ann" --per-minute 60  prints the key, this once
  upres keys revoke KEY_ID

\b
Exit codes: 0 done · 1 it was not · 2 wrong usage
"""


@click.group("keys", invoke_without_command=True, help=HELP, epilog=EPILOG)
@click.pass_context
def api_keys(context: click.Context) -> None:
    """See HELP."""
    if context.invoked_subcommand is None:
        from upres.core import api_keys as stored

        with connection() as redis:
            listed = table("id", "name", "made", "a minute", "at once", "megapixels a day")
            for key in stored.listing(redis):
                limits = (key.requests_per_minute, key.jobs_at_once, f"{key.megapixels_per_day:g}")
                row(listed, key.key_id, key.name, f"{key.created_at:%Y-%m-%d}", *map(str, limits))
            print_table(listed, "There are no keys.")


@api_keys.command()
@click.argument("name")
@click.option("--per-minute", default=120, show_default=True, help="Submissions; as many may come at once.")
@click.option("--at-once", default=100, show_default=True, help="Jobs that have not ended.")
@click.option("--megapixels", default=50_000.0, show_default=True, help="Of results, in 24 hours.")
def create(name: str, per_minute: int, at_once: int, megapixels: float) -> None:
    """Make a key for somebody. It is shown this once; only its digest is kept."""
    from upres.core import api_keys as stored

    with connection() as redis:
        try:
            limits = {"requests_per_minute": per_minute, "jobs_at_once": at_once, "megapixels_per_day": megapixels}
            _, text = stored.create(redis, name, **limits)
        except ValidationError as error:
            raise click.UsageError("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from None
    print(text)


@api_keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Let nobody use a key any more; its jobs go on."""
    from upres.core import api_keys as stored

    with connection() as redis:
        stored.revoke(redis, key_id)
