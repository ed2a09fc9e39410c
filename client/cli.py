"""The command `upres`."""

import os
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from client.errors import ServerUnreachable
from client.sdk import Client
from core.errors import UpresError
from core.schema import TERMINAL, Event, Queued, Requeued, Started, Succeeded
from core.schema import Progress as ProgressEvent

FOR_OPERATORS = {"jobs": "client.jobs", "keys": "client.keys", "models": "models.commands"}
AT_ONCE = 4
"""Images followed at the same time; how many are enlarged at the same time is the workers' business."""
FAILED, UNREACHABLE, INTERRUPTED = 1, 3, 130
EPILOG = """\b
Examples:
  upres photo.jpg                        → photo_x4.jpg
  upres a.png b.png --factor 2 --out big → big/a_x2.png, big/b_x2.png
  upres https://example.org/cat.webp --format png

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
        return ["enlarge", *FOR_OPERATORS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name; those for operators need more than a client has."""
        if cmd_name not in FOR_OPERATORS:
            return super().get_command(ctx, cmd_name)
        try:
            command: click.Command = getattr(import_module(FOR_OPERATORS[cmd_name]), cmd_name)
        except ImportError as error:
            need = "pip install redis rq boto3"
            raise click.ClickException(f"upres {cmd_name} talks to Redis and the store: {need} ({error})") from error
        return command


@click.group(cls=Upres, epilog=EPILOG, context_settings={"max_content_width": 100})
@click.version_option(package_name="upres")
def main() -> None:
    """See Upres.format_help."""


@main.command(epilog=EPILOG)
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@click.option(
    "--factor", type=click.Choice(["2", "4", "8"]), default="4", show_default=True, help="Enlargement per side."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Folder for the results.",
)
@click.option(
    "--format", "output_format", type=click.Choice(["auto", "png", "jpeg", "webp"]), default="auto", show_default=True,
    help="File format; auto: as the input.",
)  # fmt: skip
@click.option("--model", help="Model name; default: the server's.")
@click.option("--model-version", help="A version or a label of the model; default: stable.")
@click.option(
    "--server",
    envvar="UPRES_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    show_envvar=True,
    help="Where upres runs.",
)
@click.option("--api-key", envvar="UPRES_API_KEY", show_envvar=True, help="Key for it, where one is needed.")
def enlarge(
    photos: tuple[str, ...],
    factor: str,
    out: Path,
    output_format: str,
    model: str | None,
    model_version: str | None,
    server: str,
    api_key: str | None,
) -> None:
    """Enlarge photos by super-resolution. PHOTO is a file or an http(s) address.

    PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF come in, PNG, JPEG or WebP go out.
    """
    names = Counter(Path(_name(photo)).stem for photo in photos)
    if twice := [name for name, count in names.items() if count > 1]:
        raise click.UsageError(f"Several photos are called {twice[0]!r}: one result would overwrite the other.")
    out.mkdir(parents=True, exist_ok=True)
    with Client(server, api_key) as client, _bars(Console(stderr=True)) as bars:
        sys.exit(Batch(client, bars, int(factor), out, output_format, model, model_version).run(photos))


@dataclass
class Batch:
    """Photos on their way, each with its bar."""

    client: Client
    bars: Progress
    factor: int
    out: Path
    output_format: str
    model: str | None
    model_version: str | None
    jobs: set[str] = field(default_factory=set)
    """Those that have not ended."""

    def run(self, photos: Iterable[str]) -> int:
        """Enlarge them all; the exit code. On Ctrl-C, cancel what runs and leave at once."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                return max(pool.map(self._enlarge, photos))
            except KeyboardInterrupt:
                self.bars.stop()
                for job_id in list(self.jobs):
                    with suppress(UpresError):
                        self.client.cancel(job_id)
                os._exit(INTERRUPTED)  # the threads still listen; there is nothing left to wait for

    def _enlarge(self, photo: str) -> int:
        task = self.bars.add_task(_name(photo), total=100, stage="waiting", eta="")
        try:
            upscaled = self.client.upscale(
                photo,
                self.factor,
                model=self.model,
                model_version=self.model_version,
                output_format=self.output_format,
                on_event=lambda event: self._on_event(task, event),
            )
            extension = "jpg" if upscaled.result.format == "jpeg" else upscaled.result.format
            path = upscaled.save(self.out / f"{Path(_name(photo)).stem}_x{self.factor}.{extension}")
        except (UpresError, OSError) as error:
            self.bars.update(task, stage="[red]failed")
            text = f"{_name(photo)}: {_sentence(error)}"
            self.bars.console.print(text, style="red", markup=False, highlight=False)
            return UNREACHABLE if isinstance(error, ServerUnreachable) else FAILED
        self.bars.update(task, stage=f"[green]{upscaled.result.width}×{upscaled.result.height}")
        print(path)
        return 0

    def _on_event(self, task: TaskID, event: Event) -> None:
        if event.type in TERMINAL:
            self.jobs.discard(event.job_id)
        else:
            self.jobs.add(event.job_id)
        _show(self.bars, task, event)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[stage]}"),
        TextColumn("{task.fields[eta]}"),
        console=console,
    )


def _show(bars: Progress, task: TaskID, event: Event) -> None:
    """One event on its bar."""
    match event:
        case Queued():
            bars.update(task, stage=f"queued, {event.position} ahead")
        case Started():
            bars.update(task, stage=f"on {escape(event.device)}")
        case Requeued():
            bars.update(task, stage="waiting again", eta="")
        case ProgressEvent():
            tiles = f" tile {event.tiles_done}/{event.tiles_total}" if event.tiles_total else ""
            eta = f"{event.eta_seconds:.0f} s left" if event.eta_seconds else ""
            bars.update(task, completed=event.percent, stage=f"{event.stage}{tiles}", eta=eta)
        case Succeeded():
            bars.update(task, completed=100, stage="downloading", eta="")


def _name(photo: str) -> str:
    """The file name in a path or URL."""
    path = urlsplit(photo).path if "://" in photo else photo
    return Path(path).name or "image"


def _sentence(error: Exception) -> str:
    if isinstance(error, UpresError):
        return f"{error} ({error.code})"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
