"""The command `upres PHOTO…`; upres/cli.py combines it with the commands of the other folders."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from upres import __version__
from upres.client.batch import Backend
from upres.client.command_options import CommandOptions
from upres.client.enlarging import estimate, run
from upres.client.environment import DEFAULT_URL
from upres.client.output_paths import NAME
from upres.client.protocol import JobOptions
from upres.client.signals import stopped_by_signals
from upres.client.text import sentence
from upres.client.wanted_size import BY_SIZE, factor_of
from upres.core.errors import UpresError
from upres.core.schema import WantedFormat
from upres.core.sizes import MAX_SIDE

InProcess = Callable[[float | None, JobOptions], Backend]
"""Function of (factor or None, options of a job) that returns the local engine for `--local`. Raises UpresError."""

SIDE = click.IntRange(1, MAX_SIDE)
AT_ONCE = 8
"""Default number of images in progress at once. The number of slots of the workers limits how many run at once."""
EPILOG = """\b
Examples:
  upres photo.jpg                             → photo_x4.jpg
  upres holiday --factor 2 --out big          → big/…, with holiday's subfolders
  upres photo.jpg --width 1920                → photo_w1920.jpg, 1920 pixels wide
  upres "raw/**/*.tif" --format png --out big
  find . -size -1M -name "*.jpg" | upres - --out big --json
  upres https://example.org/cat.webp
  upres scan.tif --format jxl --lossless      → scan_x4.jxl, with every pixel exact
  upres holiday --format avif --quality 70 --out small
  upres --local photo.jpg                     without a server
  upres --estimate photo.jpg                  size and duration; enlarges nothing

\b
The folder of the results contains a manifest (.upres.db) of finished images.
After Ctrl-C, a crash or a power failure, or when images were added, run the
same command again: it skips the finished images and continues. Results among
the photos are left out, unless only results are named: upres photo_x4.jpg

\b
Exit codes: 0 all images enlarged or skipped · 1 some failed · 2 wrong usage
            3 server not reachable · 130 interrupted (Ctrl-C) · 143 by SIGTERM
"""


@click.command(epilog=EPILOG)
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@click.option(
    "--factor",
    metavar="NUMBER",
    callback=factor_of,
    show_default="4",
    help="Enlargement of each side: any number from 1 to 8; 1 for models that keep the size.",
)
@click.option("--width", type=SIDE, help="Width of results in pixels, instead of --factor; the height follows.")
@click.option("--height", type=SIDE, help="Height of results; with --width the largest that fits into both.")
@click.option(
    "--fit", type=click.Choice(["inside", "exact"]), default="inside", show_default=True,
    help="inside: keep the proportions; exact: stretch to exactly --width and --height.",
)  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Output folder; default: here.")
@click.option(
    "--name",
    show_default=f"{NAME}, or {BY_SIZE}",
    metavar="PATTERN",
    help="Pattern of output names; fields: {stem}, {suffix}, {parent}, {n}, {factor}, {size}, {model}.",
)
@click.option(
    "--format", "output_format", type=click.Choice(get_args(WantedFormat)), default="auto", show_default=True,
    help="Output file format; auto: JPEG, WebP, animated GIF and TIFF with several pages stay, AVIF becomes WebP, all "
    "others become PNG. jxl is JPEG XL.",
)  # fmt: skip
@click.option(
    "--quality", type=click.IntRange(1, 100), metavar="1-100",
    help="Quality of JPEG, WebP, AVIF and JPEG XL: less is smaller. Default: JPEG 95, AVIF 85, the others 90.",
)  # fmt: skip
@click.option(
    "--lossless/--lossy", default=None,
    help="Whether the pixels are stored exactly: PNG and TIFF always do, WebP and JPEG XL can, JPEG and AVIF cannot. "
    "Default: lossy, but for the WebP of a lossless WebP.",
)  # fmt: skip
@click.option(
    "--depth", "output_depth", type=click.Choice(["auto", "8", "16"]), default="auto", show_default=True,
    help="Bits per sample of the result; auto: as the image has, where the format can. 16 needs png, tiff or jxl.",
)  # fmt: skip
@click.option(
    "--metadata", type=click.Choice(["strip", "keep", "keep-all"]), default="strip", show_default=True,
    help="What results keep of EXIF, XMP, IPTC, resolution, texts; keep: all but places (GPS); keep-all: places too.",
)  # fmt: skip
@click.option(
    "--frames", type=click.Choice(["all", "first"]), default="all", show_default=True,
    help="What is enlarged of an animation (GIF, WebP, PNG), or of the pages of a TIFF; other formats get the first.",
)  # fmt: skip
@click.option("--model", help="Model name; default: chosen by the server.")
@click.option("--model-version", help="Version or label of the model; default: stable.")
@click.option(
    "--strength", type=click.FloatRange(0, 1), metavar="0-1",
    help="For models with a strength, such as photo: 0 is faithful to what is there, 1 is clean and sharp. "
    "Default: the model's.",
)  # fmt: skip
@click.option("--first-model", help="Model with factor 1, such as a denoiser, that is applied before; default: none.")
@click.option(
    "--at-once", type=click.IntRange(1, 256), default=AT_ONCE, show_default=True, help="Images in progress at once."
)
@click.option("--ensemble", is_flag=True, help="Average the eight orientations: slightly better, in 8 times the time.")
@click.option("--force", is_flag=True, help="Enlarge finished images again, and overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image, and a summary at the end.")
@click.option("--estimate", is_flag=True, help="Only print the size of each result and the expected time.")
@click.option("--local", is_flag=True, help="Enlarge in this process; --model may be the folder of a version.")
@click.option(
    "--server", envvar="UPRES_URL", default=DEFAULT_URL, show_default=True, show_envvar=True,
    help="URL of the upres server.",
)  # fmt: skip
@click.option("--api-key", envvar="UPRES_API_KEY", show_envvar=True, help="API key, if the server requires one.")
@click.option(
    "--cacert",
    type=click.Path(exists=True, dir_okay=False),
    help="CA certificates (PEM file) to trust instead of the system's.",
)
@click.version_option(__version__, prog_name="upres")
@click.pass_obj
def enlarge(in_process: InProcess, /, **given: Any) -> None:
    """Enlarge photos by super-resolution.

    PHOTO is a file, a folder, a pattern, an http(s) URL, or - to read a list of them from stdin. Input formats: PNG,
    JPEG, WebP, AVIF, HEIC, JPEG XL, JPEG 2000, TIFF, BMP and GIF. Output formats: PNG, JPEG, WebP, AVIF, JPEG XL, TIFF
    and GIF. Of a folder, the images that cannot be enlarged are named; other files are passed over.
    """
    options = CommandOptions(**given)
    with stopped_by_signals():
        if options.estimate:
            sys.exit(estimate(options))
        sys.exit(run(options, _local(in_process, options) if options.local else None))


def _local(in_process: InProcess, options: CommandOptions) -> Backend:
    """The local engine. Raises click.ClickException when the model cannot be opened."""
    try:
        return in_process(options.size.factor, options.options)
    except (UpresError, OSError) as error:
        raise click.ClickException(sentence(error)) from error
