"""The command `upres` with its subcommands, which other packages define, and the extras that they need."""

import errno
import os
from importlib import import_module
from typing import Any, NamedTuple

import click

from upres.client.batch import Backend
from upres.client.cli import EPILOG, enlarge
from upres.client.protocol import JobOptions
from upres.client.text import accept_any_file_name, open_closed_streams
from upres.core.errors import not_installed


class Subcommand(NamedTuple):
    """A subcommand that is imported when it is used."""

    module: str
    name: str
    extra: str
    """Extra of the package upres that installs the imports of the command."""


SUBCOMMANDS = {
    "up": Subcommand("upres.embedded.commands", "up", "server"),
    "jobs": Subcommand("upres.console.jobs", "jobs", "operator"),
    "keys": Subcommand("upres.console.api_keys", "api_keys", "operator"),
    "models": Subcommand("upres.models.commands", "models", "operator"),
    "workers": Subcommand("upres.console.workers", "show", "operator"),
    "doctor": Subcommand("upres.console.doctor.commands", "doctor", "operator"),
}
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Error numbers of a stdout that is a file on a full or broken disk."""
OPERATOR_MODULES = ("redis", "rq", "boto3", "botocore")
"""Modules that the extra `operator` installs. If an operator's command lacks any other module, it is a library of the
engine, which the extra `worker` installs, or one of EXTRAS."""
EXTRAS = {
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
    **dict.fromkeys(("spandrel", "torchvision"), "community"),
}
"""Modules that other extras install."""


class Upres(click.Group):
    """The group of all subcommands. Arguments that do not begin with a subcommand are for `enlarge`."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line, with streams that are open and accept every file name."""
        open_closed_streams()
        accept_any_file_name()
        return super().main(*args, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `upres PHOTO` as `upres enlarge PHOTO`."""
        if not args or (args[0] not in self.list_commands(ctx) and args[0] != "--help"):
            args = ["enlarge", *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of `enlarge`, which most users want, and the list of the other commands."""
        with click.Context(enlarge, info_name="upres") as inner:
            enlarge.format_usage(inner, formatter)
            enlarge.format_help_text(inner, formatter)
            enlarge.format_options(inner, formatter)
        self.format_commands(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, without importing them."""
        return ["enlarge", *SUBCOMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None when there is no such command."""
        if cmd_name not in SUBCOMMANDS:
            return super().get_command(ctx, cmd_name)
        found = SUBCOMMANDS[cmd_name]
        command: click.Command = getattr(import_module(found.module), found.name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. Raises click.ClickException when a Python package is missing, or stdout cannot be written."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.filename is None and error.errno in UNWRITABLE:
                raise click.ClickException(f"The output cannot be written: {os.strerror(error.errno)}.") from error
            raise
        except ModuleNotFoundError as error:
            name = ctx.invoked_subcommand or ""
            what, extra = (f"upres {name}", SUBCOMMANDS[name].extra) if name in SUBCOMMANDS else ("--local", "local")
            missing = (error.name or "").partition(".")[0]
            if extra == "operator" and missing not in OPERATOR_MODULES:
                extra = EXTRAS.get(missing, "worker")
            raise click.ClickException(str(not_installed(error, what, extra))) from error


@click.group(cls=Upres, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.pass_context
def main(context: click.Context) -> None:
    """Set the backend of `enlarge --local`. The help comes from Upres.format_help."""
    context.obj = in_process


main.add_command(enlarge)


def in_process(factor: float | None, options: JobOptions) -> Backend:
    """Open the backend that runs the engine in this process. Raises ModelNotFound or ModelError."""
    from upres.models.inprocess import InProcess

    return InProcess(factor, options)
