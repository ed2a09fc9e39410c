"""Which model, and which strength, people are likely to prefer: on clean, compressed and noisy photos, enlarged ×4.

    python -m benchmarks.preference [--pairs FOLDER] [--teacher FOLDER] [--sheet FILE.png]

The input is the middle of each image of Set14 (--pairs: folder with NAME_HR.png), made small in three ways: bicubic
interpolation alone (clean); blur, then JPEG of quality 50 (compressed); blur, noise, then JPEG of quality 75 (noisy),
as phones and web sites make photos. Measured against the large image: PSNR (see models/pairs.py; higher is better), and
SSIMULACRA and Butteraugli (lower is better), if Debian's package libjxl-devtools is installed. --teacher: folder of a
version of realesrgan-x4plus. --sheet: writes a picture of results side by side.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.report import emit
from upres.models import bundled
from upres.models.pairs import Pixels, psnr
from upres.worker.engine.device import choose as choose_device
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.runtimes import choose
from upres.worker.model import Model, open_folder

PAIRS = Path("../shared/benchmarks/Set14_x4")
FACTOR, SIDE = 4, 256
"""Factor, and largest side in pixels of the middle that is cut from each large image."""
STRENGTHS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
SHOWN = ("bicubic", "photo 0.0", "photo 0.3", "photo 0.5", "photo 0.7", "photo 1.0", "teacher")
"""Networks in the sheet."""
PICTURES = 4
"""Images of each kind in the sheet: those in which the networks differ most."""
CUT = 160
"""Side in pixels of the square of each result in the sheet."""
Enlarge = Callable[[Image.Image], Image.Image]


class Degradation(NamedTuple):
    """How an image is made small; noise in grey levels, blur in pixels of the large image."""

    blur: float
    noise: float
    jpeg: int | None

    def __call__(self, large: Image.Image, seed: int) -> Image.Image:
        """The small image; the same for each seed."""
        soft = large.filter(ImageFilter.GaussianBlur(self.blur)) if self.blur else large
        small = soft.resize((large.width // FACTOR, large.height // FACTOR), Image.Resampling.BICUBIC)
        if self.noise:
            noise = np.random.default_rng(seed).normal(0, self.noise, (small.height, small.width, 3))
            small = Image.fromarray(np.clip(np.rint(np.asarray(small) + noise), 0, 255).astype(np.uint8))
        if self.jpeg is None:
            return small
        packed = io.BytesIO()
        small.save(packed, "JPEG", quality=self.jpeg)
        with Image.open(packed) as opened:
            return opened.convert("RGB")


KINDS = {
    "clean": Degradation(0, 0, None),
    "compressed": Degradation(2, 0, 50),
    "noisy": Degradation(2, 8, 75),
}


class Scores(NamedTuple):
    """Distances between a result and the large image; NaN where a tool is not installed."""

    psnr: float
    ssimulacra: float
    butteraugli: float


def main() -> int:
    """Print one JSON line per kind, network and measure. Without images: prints an error; returns 1 in CI, else 0."""
    options = _options()
    references = list(_middles(options.pairs))
    if not references:
        print(f"preference: no images like NAME_HR.png in {options.pairs}; give their folder.", file=sys.stderr)
        return int("CI" in os.environ)
    rows: list[tuple[str, list[Image.Image]]] = []
    with _networks(options.teacher) as networks:
        for kind, degrade in KINDS.items():
            small = [degrade(image, number) for number, image in enumerate(references)]
            made = {name: [enlarge(image) for image in small] for name, enlarge in networks.items()}
            _report(kind, references, made)
            rows += _rows(kind, references, made)
    if options.sheet:
        _draw(rows, [name for name in SHOWN if name in networks]).save(options.sheet)
    return 0


def _middles(folder: Path) -> Iterator[Image.Image]:
    for path in sorted(folder.glob("*_HR.png")):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        width, height = (min(side, SIDE) // FACTOR * FACTOR for side in image.size)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        yield image.crop((left, top, left + width, top + height))


@contextmanager
def _networks(teacher: Path | None) -> Iterator[dict[str, Enlarge]]:
    """Give the ways to enlarge, by name."""
    photo = open_folder(list(bundled.versions("photo").values())[-1])
    models = {f"photo {strength}": photo.at(strength) for strength in STRENGTHS}
    if teacher:
        models["teacher"] = open_folder(teacher)
    with ExitStack() as stack:
        engines = {name: _engine(model, stack.enter_context(DeviceThread())) for name, model in models.items()}
        yield {"bicubic": _bicubic, **{name: _by(engine) for name, engine in engines.items()}}


def _engine(model: Model, thread: DeviceThread) -> Engine:
    return Engine(model.manifest, choose(model, choose_device("auto")), thread)


def _by(engine: Engine) -> Enlarge:
    return lambda image: Image.fromarray(engine.upscale(np.asarray(image), FACTOR))


def _bicubic(image: Image.Image) -> Image.Image:
    return image.resize((image.width * FACTOR, image.height * FACTOR), Image.Resampling.BICUBIC)


def _report(kind: str, references: list[Image.Image], made: dict[str, list[Image.Image]]) -> None:
    """Print the means over all images; the peer is bicubic interpolation."""
    means = {}
    for name, results in made.items():
        scores = [_scores(*pair) for pair in zip(references, results, strict=True)]
        means[name] = Scores(*(float(value) for value in np.mean(scores, axis=0)))
    for name, found in means.items():
        for measure, unit in (("psnr", "dB"), ("ssimulacra", "distance"), ("butteraugli", "distance")):
            value, bicubic = getattr(found, measure), getattr(means["bicubic"], measure)
            if not np.isnan(value):
                emit(f"preference.{kind}.{name.replace(' ', '_')}.{measure}", value, unit, "bicubic", bicubic)


def _scores(reference: Image.Image, result: Image.Image) -> Scores:
    with tempfile.TemporaryDirectory() as temporary:
        files = [f"{temporary}/{name}.png" for name in ("reference", "result")]
        for image, file in zip((reference, result), files, strict=True):
            image.save(file)
        tools = (_distance(tool, files) for tool in ("ssimulacra_main", "butteraugli_main"))
        return Scores(psnr(_pixels(result), _pixels(reference), FACTOR), *tools)


def _distance(tool: str, files: list[str]) -> float:
    """The distance that a tool of libjxl prints first."""
    if shutil.which(tool) is None:
        return float("nan")
    return float(subprocess.run([tool, *files], capture_output=True, text=True, check=True).stdout.split()[0])


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image)


def _rows(
    kind: str, references: list[Image.Image], made: dict[str, list[Image.Image]]
) -> list[tuple[str, list[Image.Image]]]:
    """The rows of the sheet for a kind: the large image, then the results of the networks in SHOWN."""
    ends = zip(made["photo 0.0"], made["photo 1.0"], strict=True)
    apart = [np.abs(_pixels(one).astype(int) - _pixels(other)).mean() for one, other in ends]
    order = np.argsort(apart)[::-1][:PICTURES]
    shown = [made[name] for name in SHOWN if name in made]
    return [(kind, [references[number], *(results[number] for results in shown)]) for number in order]


def _draw(rows: list[tuple[str, list[Image.Image]]], names: list[str]) -> Image.Image:
    """A picture of all rows, each result at 200 % of its pixels, with names above."""
    side, head = 2 * CUT, 24
    sheet = Image.new("RGB", ((1 + len(names)) * (side + 4), head + len(rows) * (side + 4)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, name in enumerate(["original", *names]):
        draw.text((column * (side + 4) + 4, 2), name, "black", font)
    for row, (kind, images) in enumerate(rows):
        for column, image in enumerate(images):
            left, top = (image.width - CUT) // 2, (image.height - CUT) // 2
            cut = image.crop((left, top, left + CUT, top + CUT)).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(cut, (column * (side + 4), head + row * (side + 4)))
        draw.text((4, head + row * (side + 4) + 4), kind, "white", font, stroke_width=2, stroke_fill="black")
    return sheet


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preference", description=__doc__)
    parser.add_argument("--pairs", type=Path, default=PAIRS, help=f"folder with NAME_HR.png (default: {PAIRS})")
    parser.add_argument("--teacher", type=Path, help="folder of a version of realesrgan-x4plus")
    parser.add_argument("--sheet", type=Path, help="picture to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
