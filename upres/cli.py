"""The command `upres`: the one place that knows the commands of all parts, and what each of them needs."""

from importlib import import_module
from typing import NamedTuple

import click

from upres import __version__
from upres.client.batch import Backend
from upres.client.cli import EPILOG, enlarge
from upres.core.errors import NotInstalled
from upres.core.schema import WantedFormat


class Subcommand(NamedTuple):
    """A command that is imported when it is asked for."""

    module: str
    name: str
    extra: str
    """Of the package; it brings what the command imports."""


SUBCOMMANDS = {
    "up": Subcommand("upres.embedded.commands", "up", "server"),
    "jobs": Subcommand("upres.console.jobs", "jobs", "operator"),
    "keys": Subcommand("upres.console.api_keys", "api_keys", "operator"),
    "models": Subcommand("upres.models.commands", "models", "operator"),
    "workers": Subcommand("upres.console.workers", "show", "operator"),
    "doctor": Subcommand("upres.console.doctor.commands", "doctor", "operator"),
}
OPERATOR_MODULES = ("redis", "rq", "boto3", "botocore")
"""What `operator` brings. Of what else a command for operators may miss, the engine's libraries are in `worker`."""


class Upres(click.Group):
    """A group in which whatever is no command is a photo."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`upres PHOTO` is `upres enlarge PHOTO`."""
        if not args or (args[0] not in self.list_commands(ctx) and args[0] not in ("--help", "--version")):
            args = ["enlarge", *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """How to enlarge, which is what most people want, and which other commands there are."""
        with click.Context(enlarge, info_name="upres") as inner:
            enlarge.format_usage(inner, formatter)
            enlarge.format_help_text(inner, formatter)
            enlarge.format_options(inner, formatter)
        self.format_commands(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, without importing them."""
        return ["enlarge", *SUBCOMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in SUBCOMMANDS:
            return super().get_command(ctx, cmd_name)
        found = SUBCOMMANDS[cmd_name]
        command: click.Command = getattr(import_module(found.module), found.name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. Raises click.ClickException, which says what to install, when it needs more than is there."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = ctx.invoked_subcommand or ""
            what, extra = (f"upres {name}", SUBCOMMANDS[name].extra) if name in SUBCOMMANDS else ("--local", "local")
            if extra == "operator" and (error.name or "").partition(".")[0] not in OPERATOR_MODULES:
                extra = "worker"
            raise click.ClickException(str(NotInstalled(error, what, extra))) from error


@click.group(cls=Upres, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="upres")
@click.pass_context
def main(context: click.Context) -> None:
    """See Upres.format_help."""
    context.obj = in_process


main.add_command(enlarge)


def in_process(factor: int, output_format: WantedFormat, model: str | None, version: str | None) -> Backend:
    """The engine in this process. Raises ModelNotFound or ModelError."""
    from upres.models.inprocess import InProcess

    return InProcess(factor, output_format, model, version)
