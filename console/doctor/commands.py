"""The command `upres doctor`."""

import logging
import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.text import Text

from upres.client.environment import DEFAULT_URL
from upres.console.doctor.finding import Finding, fault, is_healthy
from upres.core.errors import SettingsError
from upres.core.foreign_text import printable
from upres.core.settings import Settings

HELP = """Check everything that a running upres needs, and say how to fix what is wrong.

It reads the same variables as the function and the workers (UPRES_REDIS_URL, UPRES_S3_BUCKET, ...): run it on the same
machine, or with the same variables. Its test data in Redis and in the store is deleted at the end."""
EPILOG = """\b
Exit codes: 0 no fault found · 1 at least one fault · 2 wrong usage
"""
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "fault": ("✗", "bold red")}


@click.command(help=HELP, epilog=EPILOG)
@click.option(
    "--server",
    envvar="UPRES_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    help="URL of the upres server.",
)
def doctor(server: str) -> None:
    """See HELP."""
    logging.getLogger("upres").setLevel(logging.CRITICAL)  # the findings report the same errors
    console = Console(width=max(Console().width, 100), highlight=False)
    findings = []
    for finding in diagnose(server):
        _print(console, finding)
        findings.append(finding)
    sys.exit(0 if is_healthy(findings) else 1)


def diagnose(server: str) -> Iterator[Finding]:
    """Yield the findings of all checks: settings, Redis, object store, function, workers. Stops at invalid settings."""
    from upres.console.doctor import function_address, processes, redis_server, store, versions
    from upres.core.queue import connect_with_timeout
    from upres.core.storage import Store

    try:
        settings = Settings.from_environment()
        redis = connect_with_timeout(settings)
    except SettingsError as error:
        yield fault("settings", str(error), "Correct the variable; docs/operations.md lists all of them.")
        return
    with redis:
        yield from redis_server.check(redis, settings.redis_url)
        yield from store.check(Store(settings, timeout=4, attempts=2), settings)
        yield from versions.check(redis, Store(settings, timeout=4, attempts=2))
        yield from function_address.check(server, settings.public_url)
        yield from processes.check_workers(redis, settings)


def _print(console: Console, finding: Finding) -> None:
    mark, style = MARKS[finding.grade]
    line = Text.assemble((mark, style), f" {finding.what:<18} ", printable(finding.found, None, lines=True))
    console.print(line, soft_wrap=True)
    if finding.fix:
        console.print(Text(f"{'':21}→ {finding.fix}", style="bold"), soft_wrap=True)
