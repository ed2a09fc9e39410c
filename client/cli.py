"""The command `upres`."""

import io
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from client.batch import Enlarger
from client.enlarging import INTERRUPTED, NAME, Wanted, estimate, run
from client.protocol import DEFAULT_URL
from client.text import sentence
from core.errors import UpresError

LATER = {
    "jobs": "client.jobs:jobs",
    "keys": "client.keys:keys",
    "models": "models.commands:models",
    "workers": "client.workers:show",
    "doctor": "client.doctor.commands:doctor",
}
"""Commands for operators: they need more than a client has, and are loaded when they are asked for."""
AT_ONCE = 8
"""Images on their way at the same time; how many are enlarged at the same time is the workers' business."""
EPILOG = """\b
Examples:
  upres photo.jpg                             → photo_x4.jpg
  upres holiday --factor 2 --out big          → big/…, with holiday's folders
  upres "raw/**/*.tif" --format png --out big
  find . -size -1M -name "*.jpg" | upres - --out big --json
  upres https://example.org/cat.webp
  upres --local photo.jpg                     without any server
  upres --estimate photo.jpg                  what would become of it, and when

\b
In the folder given with --out, a manifest (.upres.db) remembers what is done:
the same command once more, after Ctrl-C, a crash, or with more images, goes
on where it was.

\b
Exit codes: 0 all enlarged · 1 some failed · 2 wrong usage
            3 no server · 130 interrupted
"""


class Upres(click.Group):
    """What is no command is a photo."""

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
        """All commands, without loading those for operators."""
        return ["enlarge", *LATER]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in LATER:
            return super().get_command(ctx, cmd_name)
        command: click.Command = later(LATER[cmd_name], f"upres {cmd_name}", "pip install redis rq boto3")
        return command


def later(place: str, what: str, need: str) -> Any:
    """Something that needs more than a client has."""
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise click.ClickException(f"{what} needs more than the client: {need} ({error})") from error


@click.group(cls=Upres, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(package_name="upres")
def main() -> None:
    """See Upres.format_help."""


@main.command(epilog=EPILOG)
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@click.option(
    "--factor", type=click.Choice(["2", "4", "8"]), default="4", show_default=True, help="Enlargement per side."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results; default: here.")
@click.option(
    "--name", default=NAME, show_default=True, metavar="PATTERN", help="Of the results; {model} as given may be in it."
)
@click.option(
    "--format", "output_format", type=click.Choice(["auto", "png", "jpeg", "webp"]), default="auto", show_default=True,
    help="File format; auto: as the input.",
)  # fmt: skip
@click.option("--model", help="Model name; default: the server's.")
@click.option("--model-version", help="A version or a label of the model; default: stable.")
@click.option(
    "--at-once", type=click.IntRange(1, 256), default=AT_ONCE, show_default=True, help="Images on their way together."
)
@click.option("--force", is_flag=True, help="Enlarge what is done already, and replace what is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each image, and one for all of them.")
@click.option("--estimate", is_flag=True, help="Only say what would become of them.")
@click.option("--local", is_flag=True, help="Enlarge in this process; --model may be the folder of a version.")
@click.option(
    "--server", envvar="UPRES_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
    help="Where upres runs.",
)  # fmt: skip
@click.option("--api-key", envvar="UPRES_API_KEY", show_envvar=True, help="Key for it, where one is needed.")
def enlarge(**given: Any) -> None:
    """Enlarge photos by super-resolution.

    PHOTO is a file, a folder, a pattern, an http(s) address, or - for a list of them on stdin. PNG, JPEG, WebP, AVIF,
    TIFF, BMP or GIF come in, PNG, JPEG or WebP go out.
    """
    wanted = Wanted(**given)
    for stream in (sys.stdin, sys.stdout):  # names of files are bytes, and not all of them text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        code = estimate(wanted) if wanted.estimate else run(wanted, _in_process(wanted) if wanted.local else None)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _in_process(wanted: Wanted) -> Enlarger:
    """The engine in this process. Raises click.ClickException."""
    kind = later("models.inprocess:InProcess", "upres --local", "pip install -r worker/requirements.txt")
    try:
        made: Enlarger = kind(int(wanted.factor), wanted.output_format, wanted.model, wanted.model_version)
    except (UpresError, OSError) as error:
        raise click.ClickException(sentence(error)) from error
    return made
