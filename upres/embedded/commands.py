"""The command `upres up`."""

import os
import shutil
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from upres.embedded.stack import Local

PORT = 8000
"""Default port of the function."""
TAKEN = ("UPRES_ACCESS", "UPRES_CORS_ORIGINS", "UPRES_FETCH_HOSTS", "UPRES_FETCH_PRIVATE_NETWORKS")
"""Variables that say who may use upres, and what it may reach. All others may belong to another upres, and are not
taken."""
EPILOG = """\b
Examples:
  upres up                     serve until Ctrl-C; the page is at http://127.0.0.1:8000
  upres up -- upres photo.jpg  start everything, run one command, stop everything

\b
Exit codes: 0 stopped · 1 a part ended by itself · else the exit code of COMMAND
"""


@click.command(epilog=EPILOG)
@click.option(
    "--port",
    default=PORT,
    show_default=True,
    help="Port of the function, if it is free; otherwise another one.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def up(port: int, command: tuple[str, ...]) -> None:
    """Run all of upres on this machine: Redis, S3, function and worker.

    COMMAND gets their addresses and credentials in UPRES_* and AWS_* variables. All data is in a temporary folder,
    which is deleted at the end. Of the variables that are set already, UPRES_ACCESS, UPRES_CORS_ORIGINS,
    UPRES_FETCH_HOSTS and UPRES_FETCH_PRIVATE_NETWORKS apply, and no others.
    """
    from upres.core.errors import UpresError
    from upres.embedded.child import ChildDied
    from upres.embedded.stack import Local

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    # A shell starts background processes with SIGINT ignored, and Python does not change that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if command and not shutil.which(command[0]):
        click.echo(f"{command[0]}: there is no such command", err=True)
        sys.exit(127)
    click.echo("Starting Redis, an S3 server, the function and a worker …", err=True)
    try:
        given = {name: os.environ[name] for name in TAKEN if os.environ.get(name)}
        with Local(port, given) as local:
            sys.exit(_run(local, list(command)) if command else _serve(local, port))
    except (ChildDied, UpresError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)


def _run(local: "Local", command: list[str]) -> int:
    """Run a command with the stack, and return its exit code. Raises ChildDied when a part of the stack ends before."""
    from upres.embedded.child import POLL_SECONDS, LinkedProcess

    with LinkedProcess(command, local.environment) as leashed:
        while (code := leashed.poll()) is None:
            local.check()
            time.sleep(POLL_SECONDS)
    return code


def _serve(local: "Local", port: int) -> NoReturn:
    """Print the addresses of all parts, and check them until Ctrl-C. Raises ChildDied when a part ends."""
    print(f"upres is ready at {local.url}   (Ctrl-C stops it)")
    if port and not local.url.endswith(f":{port}"):
        print(f"  port {port} is taken by another program")
    print("\n  environment variables for other programs:")
    for name, value in local.environment.items():
        print(f"  export {name}={value}")
    print(f"\n  logs in {local.folder}", flush=True)
    try:
        while True:
            local.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nStopping. A running job may finish first, for at most 10 seconds.", flush=True)
        raise


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    """End the process on a signal, with the exit code of a shell, so that the stack is stopped first."""
    raise SystemExit(128 + number)
