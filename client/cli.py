"""The command `upres PHOTO…`; upres/cli.py puts it together with those of the other parts."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from upres.client.batch import Backend
from upres.client.enlarging import INTERRUPTED, NAME, Wanted, estimate, run
from upres.client.protocol import DEFAULT_URL
from upres.client.text import sentence
from upres.core.errors import UpresError
from upres.core.schema import WantedFormat

InProcess = Callable[[int, WantedFormat, str | None, str | None], Backend]
"""Factor, file format, model and version → what enlarges in this process, for `--local`. Raises UpresError."""

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


@click.command(epilog=EPILOG)
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
@click.pass_obj
def enlarge(in_process: InProcess, /, **given: Any) -> None:
    """Enlarge photos by super-resolution.

    PHOTO is a file, a folder, a pattern, an http(s) address, or - for a list of them on stdin. PNG, JPEG, WebP, AVIF,
    TIFF, BMP or GIF come in, PNG, JPEG or WebP go out.
    """
    wanted = Wanted(**given)
    for stream in (sys.stdin, sys.stdout):  # names of files are bytes, and not all of them text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        code = (
            estimate(wanted) if wanted.estimate else run(wanted, _local(in_process, wanted) if wanted.local else None)
        )
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _local(in_process: InProcess, wanted: Wanted) -> Backend:
    """The engine in this process. Raises click.ClickException."""
    try:
        return in_process(int(wanted.factor), wanted.output_format, wanted.model, wanted.model_version)
    except (UpresError, OSError) as error:
        raise click.ClickException(sentence(error)) from error
