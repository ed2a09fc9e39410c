"""`make pictures`: makes the pictures of the documentation by running what they show.

docs/before-after.png   a detail eight times enlarged, by bicubic interpolation and by both bundled models
docs/models.png         a detail four times enlarged by several models
docs/page.jpg           the page while an image is being enlarged
docs/terminal.svg       the command in a terminal
docs/doctor.svg         the operators' commands in a terminal
"""

import argparse
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from select import select

import pyte
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from infra.chromium import launch_options
from infra.demo import FACTOR, ROOT, side_by_side
from upres.client import Client
from upres.core.schema import Progress
from upres.embedded.stack import Local, tool

DOCS = ROOT / "docs"
SAMPLES = ROOT / "samples"
EYE = (150, 60, 246, 156)
"""Left, top, right, bottom of the detail used to compare models, in pixels of the photo."""
BUNDLED = ("faithful", "photo")
MODELS = (*BUNDLED, "realesrgan-x4plus")
TILES = 4
"""Number of finished tiles after which the page and the operators' commands are captured."""
COMMANDS = (
    "upres --estimate photos/coffee.png --factor 2",
    "upres photos --factor 2 --out big",
    "upres photos --factor 2 --out big",
    "upres --estimate photos --factor 2",
)
FOR_OPERATORS = ("upres doctor", "upres jobs", "upres workers")
COLUMNS, LINES = 92, 40
"""Size of the terminal, in characters."""
WIDE = 132
"""Columns of the terminal for the operators' commands, which print wide tables."""


def main() -> int:
    """Make all pictures."""
    argparse.ArgumentParser(prog="python -m infra.pictures", description=__doc__).parse_args()
    with Local() as local, Client(local.url) as client, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photos").symlink_to(SAMPLES)
        (DOCS / "terminal.svg").write_text(terminal(local, Path(folder), COMMANDS, COLUMNS))
        (DOCS / "doctor.svg").write_text(at_work(local, client, Path(folder)))
        before_after(client).save(DOCS / "before-after.png", optimize=True)
        models(local, client).save(DOCS / "models.png", optimize=True)
        page(local).save(DOCS / "page.jpg", quality=85)
    return 0


def before_after(client: Client) -> Image.Image:
    """A detail of a photo, enlarged by bicubic interpolation and by both bundled models."""
    made = {name: client.upscale(SAMPLES / "chelsea.png", FACTOR, model=name) for name in BUNDLED}
    files = {"bicubic": made[BUNDLED[0]].download("original")} | {name: one.download() for name, one in made.items()}
    return side_by_side({name: Image.open(io.BytesIO(file)) for name, file in files.items()})


def models(local: Local, client: Client) -> Image.Image:
    """A detail of a photo, enlarged by bicubic interpolation and by each of MODELS."""
    for name in MODELS[len(BUNDLED) :]:
        subprocess.run([tool("upres"), "models", "pull", name], env={**os.environ, **local.environment}, check=True)
    made = [client.upscale(SAMPLES / "chelsea.png", 4, model=name) for name in MODELS]
    files = [made[0].download("original"), *(one.download() for one in made)]
    left, top, right, bottom = (4 * side for side in EYE)
    details = [Image.open(io.BytesIO(file)).convert("RGB").crop((left, top, right, bottom)) for file in files]
    return _row(details, ["bicubic", *MODELS])


def _row(details: Sequence[Image.Image], names: Sequence[str]) -> Image.Image:
    width, height = details[0].size
    canvas = Image.new("RGB", (len(details) * (width + 6) - 6, height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for index, (detail, name) in enumerate(zip(details, names, strict=True)):
        left = index * (width + 6)
        canvas.paste(detail, (left, 0))
        draw.rectangle((left, height - 32, left + 16 + draw.textlength(name, font), height), "black")
        draw.text((left + 8, height - 26), name, "white", font)
    return canvas


def page(local: Local) -> Image.Image:
    """A screenshot of the page with one finished image and one in progress."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        seen = browser.new_page(viewport={"width": 900, "height": 1280})
        seen.goto(local.url)
        seen.set_input_files("#files", SAMPLES / "chelsea.png")
        seen.wait_for_selector(".done:not([hidden])")
        seen.locator("input[name=factor][value='8']").check(force=True)
        seen.set_input_files("#files", SAMPLES / "coffee.png")
        first = seen.locator(".tiles").first
        while int(first.get_attribute("data-tiles") or 0) < TILES:
            seen.wait_for_timeout(50)
        shot = seen.screenshot()
        browser.close()
    return Image.open(io.BytesIO(shot)).convert("RGB")


def terminal(local: Local, folder: Path, commands: Sequence[str], columns: int) -> str:
    """Run commands in a terminal of `columns` columns; returns the screen as SVG."""
    screen = pyte.Screen(columns, LINES)
    stream = pyte.ByteStream(screen)
    for command in commands:
        stream.feed(f"\x1b[1m$ {command}\x1b[0m\r\n".encode())
        name, *arguments = command.split()
        stream.feed(_in_a_terminal([tool(name), *arguments], local, folder, columns) + b"\r\n")
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    lines = [_line(screen, number) for number in range(LINES)]
    while not lines[-1].plain.strip():
        lines.pop()
    for line in lines:
        console.print(line, no_wrap=True, crop=True)
    # Remove the web fonts, so that the SVG loads nothing from other servers; every system has a monospaced font.
    plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
        "Fira Code", "ui-monospace"
    )
    return console.export_svg(title="upres", code_format=plain)


def at_work(local: Local, client: Client, folder: Path) -> str:
    """The operators' commands in a terminal while a job runs, as SVG."""
    job = client.submit(SAMPLES / "coffee.png", FACTOR)
    for event in client.events(job.job_id):
        if isinstance(event, Progress) and event.tiles_done == TILES:
            break
    shown = terminal(local, folder, FOR_OPERATORS, WIDE)
    client.cancel(job.job_id)
    return shown


def _in_a_terminal(command: list[str], local: Local, folder: Path, columns: int) -> bytes:
    """The bytes that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        **local.environment,
        "COLUMNS": str(columns),
        "LINES": str(LINES),
        "TERM": "xterm-256color",
    }
    written = bytearray()
    with subprocess.Popen(command, env=environment, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        while running.poll() is None or select([ours], [], [], 0)[0]:
            if select([ours], [], [], 0.1)[0]:
                try:
                    written += os.read(ours, 1 << 16)
                except OSError:  # the command has closed its end of the terminal
                    break
    os.close(ours)
    return bytes(written)


def _line(screen: pyte.Screen, number: int) -> Text:
    """One line of the screen with its colours, as rich text."""
    line = Text()
    for column in range(screen.columns):
        cell = screen.buffer[number][column]
        colour = f"#{cell.fg}" if re.fullmatch(r"[0-9a-f]{6}", cell.fg) else cell.fg.replace("brown", "yellow")
        line.append(cell.data, f"{'bold ' if cell.bold else ''}{colour if colour != 'default' else ''}")
    line.rstrip()
    return line


if __name__ == "__main__":
    sys.exit(main())
