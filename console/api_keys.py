"""`upres keys`: creates, lists and revokes API keys. Connects directly to Redis, at UPRES_REDIS_URL."""

import click
from pydantic import ValidationError

from upres.console.terminal import connection, print_table, row, table

HELP = """Manage API keys and their limits.

Without a command: list all keys. The server checks keys when UPRES_ACCESS=keys. Needs access to Redis
(UPRES_REDIS_URL)."""


EPILOG = """\b
Examples:
  upres keys                               list all keys and their limits
  upres keys create "Ann" --per-minute 60  print a new key (shown only once)
  upres keys revoke KEY_ID                 reject a key, and the tokens of its jobs
  upres keys rotate-secret                 reject the tokens of all jobs

\b
Exit codes: 0 success · 1 error · 2 wrong usage
"""


@click.group("keys", invoke_without_command=True, help=HELP, epilog=EPILOG)
@click.pass_context
def api_keys(context: click.Context) -> None:
    """See HELP."""
    if context.invoked_subcommand is None:
        from upres.core import api_keys as stored

        with connection() as redis:
            listed = table("id", "name", "made", "a minute", "at once", "megapixels a day", "MB a day")
            for key in stored.listing(redis):
                limits = (key.requests_per_minute, key.jobs_at_once, key.megapixels_per_day, key.megabytes_per_day)
                row(listed, key.key_id, key.name, f"{key.created_at:%Y-%m-%d}", *(f"{limit:g}" for limit in limits))
            print_table(listed, "There are no keys.")


@api_keys.command()
@click.argument("name")
@click.option(
    "--per-minute", default=120, show_default=True, help="POST requests per minute; they may come in a burst."
)
@click.option("--at-once", default=100, show_default=True, help="Jobs that have not ended, at most.")
@click.option("--megapixels", default=50_000.0, show_default=True, help="Megapixels of results per 24 hours.")
@click.option("--megabytes", default=20_000.0, show_default=True, help="Megabytes of sent images per 24 hours.")
def create(name: str, per_minute: int, at_once: int, megapixels: float, megabytes: float) -> None:
    """Create an API key for the owner NAME. It is shown only once; only its digest is stored."""
    from upres.core import api_keys as stored

    with connection() as redis:
        try:
            _, text = stored.create(
                redis,
                name,
                requests_per_minute=per_minute,
                jobs_at_once=at_once,
                megapixels_per_day=megapixels,
                megabytes_per_day=megabytes,
            )
        except ValidationError as error:
            raise click.UsageError("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from None
    print(text)


@api_keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Revoke a key: it is rejected from now on, and so are the tokens of its jobs. These jobs continue."""
    from upres.core import api_keys as stored

    with connection() as redis:
        stored.revoke(redis, key_id)


@api_keys.command()
def rotate_secret() -> None:
    """Make the tokens of all jobs invalid, for example because addresses with tokens became public.

    It works at once, in all running functions. API keys stay valid: with them clients go on reading their jobs, and new
    jobs get new tokens.
    """
    from upres.core import api_keys as stored

    with connection() as redis:
        stored.replace_token_secret(redis)
