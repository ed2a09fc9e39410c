"""The command `upres doctor`."""

import logging
import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.text import Text

from upres.client.protocol import DEFAULT_URL
from upres.client.text import printable
from upres.console.doctor.finding import Finding, is_well, wrong
from upres.core.errors import SettingsError
from upres.core.settings import Settings

HELP = """Look at everything that a running upres needs, and say how to mend what is wrong.

It reads the same variables as function and workers (UPRES_REDIS_URL, UPRES_S3_BUCKET, ...), so run it where they
run, or with their variables. It changes nothing: in the store it puts a small file and takes it away again."""
EPILOG = """\b
Exit codes: 0 nothing is wrong · 1 something is · 2 wrong usage
"""
MARKS = {"well": ("✓", "green"), "doubtful": ("!", "yellow"), "wrong": ("✗", "bold red")}


@click.command(help=HELP, epilog=EPILOG)
@click.option("--server", envvar="UPRES_URL", default=DEFAULT_URL, show_default=True, help="Where the function is.")
def doctor(server: str) -> None:
    """See HELP."""
    logging.getLogger("upres").setLevel(logging.CRITICAL)  # what is wrong is told below
    console = Console(width=max(Console().width, 100), highlight=False)
    findings = []
    for finding in look(server):
        _print(console, finding)
        findings.append(finding)
    sys.exit(0 if is_well(findings) else 1)


def look(server: str) -> Iterator[Finding]:
    """Everything, the nearest first."""
    from upres.console.doctor import objects, parts, queue
    from upres.core.queue import connect_quickly
    from upres.core.storage import Store

    try:
        settings = Settings.from_environment()
        redis = connect_quickly(settings)
    except SettingsError as error:
        yield wrong("settings", str(error), "Set the variable right; docs/operations.md lists them all.")
        return
    with redis:
        yield from queue.look(redis, settings.redis_url)
        yield from objects.look(Store(settings, patience=4, attempts=2), settings)
        yield parts.function(server)
        yield from parts.look(redis, settings)


def _print(console: Console, finding: Finding) -> None:
    mark, style = MARKS[finding.grade]
    line = Text.assemble((mark, style), f" {finding.what:<18} ", printable(finding.found))
    console.print(line, soft_wrap=True)
    if finding.mend:
        console.print(Text(f"{'':21}→ {finding.mend}", style="bold"), soft_wrap=True)
