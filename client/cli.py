"""The command `upres`."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from client.errors import ServerUnreachable
from client.sdk import Client
from core.errors import UpresError
from core.schema import Event, Queued, Started, Succeeded
from core.schema import Progress as ProgressEvent

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


@click.command(epilog=EPILOG, context_settings={"max_content_width": 100})
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
@click.option(
    "--server",
    envvar="UPRES_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    show_envvar=True,
    help="Where upres runs.",
)
def main(photos: tuple[str, ...], factor: str, out: Path, output_format: str, model: str | None, server: str) -> None:
    """Enlarge photos by super-resolution. PHOTO is a file or an http(s) address; PNG, JPEG or WebP."""
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    with Client(server) as client, _bars(console) as bars, ThreadPoolExecutor(AT_ONCE) as pool:

        def enlarge(photo: str) -> int:
            task = bars.add_task(_name(photo), total=100, stage="waiting")
            try:
                upscaled = client.upscale(
                    photo, int(factor), model=model, output_format=output_format,
                    on_event=lambda event: _show(bars, task, event),
                )  # fmt: skip
                extension = "jpg" if upscaled.result.format == "jpeg" else upscaled.result.format
                path = upscaled.save(out / f"{Path(_name(photo)).stem}_x{factor}.{extension}")
            except (UpresError, OSError) as error:
                bars.update(task, stage="[red]failed")
                bars.console.print(f"[red]{_name(photo)}: {_sentence(error)}", highlight=False)
                return UNREACHABLE if isinstance(error, ServerUnreachable) else FAILED
            bars.update(task, stage=f"[green]{upscaled.result.width}×{upscaled.result.height}")
            print(path)
            return 0

        try:
            codes = list(pool.map(enlarge, photos))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            sys.exit(INTERRUPTED)
    sys.exit(max(codes))


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[stage]}"),
        TimeRemainingColumn(compact=True),
        console=console,
    )


def _show(bars: Progress, task: TaskID, event: Event) -> None:
    """One event on its bar."""
    match event:
        case Queued():
            bars.update(task, stage=f"queued, {event.position} ahead")
        case Started():
            bars.update(task, stage=f"on {event.device}")
        case ProgressEvent():
            tiles = f" tile {event.tiles_done}/{event.tiles_total}" if event.tiles_total else ""
            bars.update(task, completed=event.percent, stage=f"{event.stage}{tiles}")
        case Succeeded():
            bars.update(task, completed=100, stage="downloading")


def _name(photo: str) -> str:
    """The file name in a path or URL."""
    path = urlsplit(photo).path if photo.startswith(("http://", "https://")) else photo
    return Path(path).name or "image"


def _sentence(error: Exception) -> str:
    if isinstance(error, UpresError):
        return f"{error} [dim]({error.code})[/dim]"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return str(error)
