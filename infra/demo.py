"""`make demo`: enlarges a photo with a local stack of all processes, and prints each step."""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from upres.client import Client
from upres.core import keys
from upres.core.errors import UpresError
from upres.core.queue import connect
from upres.core.schema import EVENT, TERMINAL, Event, Failed, Succeeded
from upres.embedded.child import ChildDied
from upres.embedded.stack import Local

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "samples" / "chelsea.png"
FACTOR = 8
"""8, so that there is some progress to watch: the network for 4 has one tile, the one for 2 after it has twelve."""
FAITHFUL = "faithful"
"""The model that the default is compared with, beside bicubic interpolation."""
CROP = (155, 75, 225, 120)
"""Left, top, right, bottom of the detail in the comparison image, in pixels of the photo."""

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Enlarge one photo and print each step; returns 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m infra.demo", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO, help="image to enlarge (default: a cat)")
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="folder for the results (default: demo)")
    arguments = parser.parse_args()
    if not arguments.photo.is_file():
        parser.error(f"there is no file {arguments.photo}")
    begin = time.monotonic()
    _say("Starting Redis, an S3 server, the function and a worker …")
    try:
        with Local() as local:
            _say(f"Redis, S3, function and worker run ({time.monotonic() - begin:.1f} s); {local.url} answers")
            _enlarge(local, arguments.photo, arguments.out)
    except (ChildDied, UpresError, OSError) as error:
        console.print(f"[red]{error}")
        return 1
    return 0


def _enlarge(local: Local, photo: Path, out: Path) -> None:
    client = Client(local.url)
    with connect(local.settings) as redis:
        pubsub: Any = redis.pubsub()
        pubsub.psubscribe(keys.channel("*"))
        begin = time.monotonic()
        accepted = client.submit(photo, FACTOR)
        _say(f"POST /v1/jobs with {photo.name} answered after {(time.monotonic() - begin) * 1000:.0f} ms")
        console.print_json(accepted.model_dump_json())
        _say(f"SUBSCRIBE {accepted.channel}")
        event = _watch(local, pubsub)
    if isinstance(event, Failed):
        raise UpresError(f"{event.message} ({event.code})")
    assert isinstance(event, Succeeded)
    result = event.result
    _say(f"{result.width}×{result.height} by model {result.model} on {result.device}")
    out.mkdir(parents=True, exist_ok=True)
    enlarged, bicubic = out / result.file_name, out / f"bicubic_{result.file_name}"
    enlarged.write_bytes(client.download(accepted.job_id))
    bicubic.write_bytes(client.download(accepted.job_id, "original"))
    comparison = out / f"{photo.stem}_compared.png"
    _say(f"once more by model {FAITHFUL}, for comparison")
    images = {"bicubic": bicubic, FAITHFUL: out / f"{FAITHFUL}_{result.file_name}", result.model: enlarged}
    images[FAITHFUL].write_bytes(client.upscale(photo, FACTOR, model=FAITHFUL).download())
    side_by_side({name: Image.open(path) for name, path in images.items()}).save(comparison)
    for path in (*images.values(), comparison):
        console.print(f"  {path}")


def _watch(local: Local, pubsub: Any) -> Event:
    """Print published events until the job ends. Raises ChildDied when one of the processes ends before."""
    while True:
        local.check()
        message = pubsub.get_message(timeout=1)
        if message is None or message["type"] != "pmessage":
            continue
        text = message["data"].decode()
        event = EVENT.validate_json(text)
        console.print(f"  [dim]{text if len(text) < 240 else text[:240] + '…'}")
        if event.type in TERMINAL:
            return event


def side_by_side(images: Mapping[str, Image.Image]) -> Image.Image:
    """The same detail of all images, from left to right, with their names below."""
    left, top, right, bottom = (FACTOR * side for side in CROP)
    details = {name: image.convert("RGB").crop((left, top, right, bottom)) for name, image in images.items()}
    width, height = right - left, bottom - top
    canvas = Image.new("RGB", (len(details) * (width + 8) - 8, height + 28), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (name, detail) in enumerate(details.items()):
        canvas.paste(detail, (number * (width + 8), 0))
        draw.text((number * (width + 8) + 4, height + 4), name, "black", ImageFont.load_default(16))
    return canvas


def _say(text: str) -> None:
    console.print(f"[bold green]●[/] {text}")


if __name__ == "__main__":
    sys.exit(main())
