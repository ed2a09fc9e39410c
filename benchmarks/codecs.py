"""PNG encoding of an upscaled photo: upres's writer against Pillow.

    python -m benchmarks.codecs

Prints speed in megapixels per second, and file size; the peer of both is Pillow with its default settings.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import emit
from upres.worker.imaging.png import PngWriter

PHOTO = Path(__file__).parent.parent / "samples" / "chelsea.png"
BANDS = 8


def photo() -> Image.Image:
    """A photo enlarged by four: as smooth as the results of upres."""
    with Image.open(PHOTO) as image:
        return image.convert("RGB").resize((image.width * 4, image.height * 4), Image.Resampling.LANCZOS)


def pillow(image: Image.Image, level: int) -> bytes:
    """Encode with Pillow, at a zlib level."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=level)
    return out.getvalue()


def ours(pixels: np.ndarray, threads: ThreadPoolExecutor) -> bytes:
    """Encode with upres's writer, in bands."""
    height, width, channels = pixels.shape
    file = io.BytesIO()
    writer = PngWriter(width, height, channels, threads, file.write)
    for band in np.array_split(pixels, BANDS):
        writer.write(band)
    writer.finish()
    return file.getvalue()


def best(work: Callable[[], bytes], runs: int) -> tuple[float, int]:
    """Seconds of the fastest of `runs` runs, and the size of its output in bytes."""
    seconds, size = float("inf"), 0
    for _ in range(runs):
        begin = time.perf_counter()
        size = len(work())
        seconds = min(seconds, time.perf_counter() - begin)
    return seconds, size


def main() -> int:
    """Print two JSON lines per encoder: megapixels per second, and megabytes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each encoder; the fastest counts (default: 5)")
    runs: int = parser.parse_args().runs
    image = photo()
    pixels = np.asarray(image)
    megapixels = image.width * image.height / 1e6
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(os.cpu_count()) as all_cores:
        peer = best(lambda: pillow(image, 6), runs)
        encoders: dict[str, Callable[[], bytes]] = {
            "pillow_level_1": lambda: pillow(image, 1),
            "upres_one_thread": lambda: ours(pixels, one),
            "upres": lambda: ours(pixels, all_cores),
        }
        for name, work in encoders.items():
            seconds, size = best(work, runs)
            emit(f"png.{name}.speed", megapixels / seconds, "MP/s", "Pillow's default", megapixels / peer[0])
            emit(f"png.{name}.size", size / 1e6, "MB", "Pillow's default", peer[1] / 1e6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
