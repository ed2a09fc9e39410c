"""Whole images, from file to file, by the worker's own parts; the peer is the simple pipeline (benchmarks/obvious.py).

    python -m benchmarks.pipeline [--device cuda]

1080p at factor 4 to PNG, with the time of each stage; 200 thumbnails of different sizes, one per slot at a time,
against a serial loop; and the host memory for a result of 100 megapixels.
"""

import argparse
import io
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.obvious import Obvious
from benchmarks.report import emit
from upres.core.settings import Settings
from upres.worker.engine import device
from upres.worker.engine.device import Device
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.runtimes import choose
from upres.worker.imaging import images
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.result_file import ResultFile
from upres.worker.model import open_folder

ROOT = Path(__file__).parent.parent
MODEL = open_folder(ROOT / "models" / "faithful" / "1")
FACTOR = 4
THUMBNAILS = 200
RUNS = 4
"""Runs of one measurement; the first one, which fills caches, is not counted."""


class Ours:
    """The worker's engine and encoders, without queue and store. Makes no bicubic enlargement, like the peer."""

    def __init__(self, on: Device) -> None:
        self.slots = Settings().slots
        self.thread = DeviceThread()
        self.engine = Engine(MODEL.manifest, choose(MODEL, on), self.thread)
        self.encoders = Encoders(self.slots)
        self.engine.warm_up()

    def run(self, data: bytes) -> bytes:
        """Enlarge an image file; returns a PNG file."""
        picture = images.decode(data, 10**9)
        output = ResultFile("png", 8, (picture.size[0] * FACTOR, picture.size[1] * FACTOR))
        return self.encoders.file(Pictures((picture,)), [output], self.engine.bands(picture.pixels, FACTOR))


def photo(width: int, height: int) -> bytes:
    """A photo, enlarged and cropped to width × height pixels, as a JPEG file."""
    with Image.open(ROOT / "samples" / "astronaut.png") as image:
        square = image.convert("RGB")
    scale = max(width, height) / square.width
    if scale > 1:
        side = max(width, height)
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    square.crop((0, 0, width, height)).save(out, "JPEG", quality=95)
    return out.getvalue()


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def warm(work: Callable[[], object]) -> float:
    """Seconds that the work takes when it was done before: the median of three runs."""
    work()
    return statistics.median(timed(work) for _ in range(RUNS - 1))


def whole(ours: Ours, obvious: Obvious, width: int, height: int) -> None:
    """Print the time of width × height pixels at factor 4."""
    data, name = photo(width, height), f"pipeline.{width}x{height}"
    cold = timed(lambda: ours.run(data))
    before = ours.thread.stats.busy_seconds
    seconds = warm(lambda: ours.run(data))
    busy = (ours.thread.stats.busy_seconds - before) / RUNS
    peer = warm(lambda: obvious.run(data))
    emit(name, seconds, "s", "obvious pipeline", peer)
    emit(f"{name}.first_run", cold, "s", "later runs of ours", seconds)
    for stage, spent in obvious.seconds.items():
        emit(f"{name}.obvious.{stage}", spent / RUNS, "s", "obvious pipeline", peer)
    emit(f"{name}.device_busy", min(busy, seconds), "s", "whole of ours", seconds)


def thumbnails(ours: Ours, obvious: Obvious, count: int) -> None:
    """Print the throughput for thumbnails of 128 to 256 pixels per side, of different sizes."""
    sides = np.random.default_rng(0).integers(128, 257, (count, 2))
    files = [photo(int(width), int(height)) for width, height in sides]
    with ThreadPoolExecutor(ours.slots) as slots:
        together = count / timed(lambda: list(slots.map(ours.run, files)))
    serial = count / timed(lambda: [ours.run(file) for file in files])
    peer = count / timed(lambda: [obvious.run(file) for file in files])
    emit("thumbnails.against_obvious", together, "jobs/s", "serial loop of the obvious pipeline", peer)
    emit("thumbnails.against_ours", together, "jobs/s", "serial loop of ours", serial)


def memory(on: Device, megapixels: float) -> None:
    """Print the peak memory above idle, in MiB, for a square result of so many; must run in its own process."""
    ours = Ours(on)
    side = round(math.sqrt(megapixels * 1e6) / FACTOR)
    data = photo(side, side)
    process = psutil.Process()
    idle = process.memory_info().rss
    seen = [idle]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    ours.run(data)
    done.set()
    watcher.join()
    emit(f"memory.{megapixels:g}_megapixels", (max(seen) - idle) / (1 << 20), "MiB", "bound of 2 GiB", 2048)


def main() -> int:
    """Print one JSON line per figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--memory", action="store_true", help="measure only memory, in this process")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--size", default="1920x1080", metavar="WxH", help="of the whole image")
    parser.add_argument("--thumbnails", type=int, default=THUMBNAILS, help=f"default: {THUMBNAILS}")
    parser.add_argument("--megapixels", type=float, default=100, help="of the result for which memory is measured")
    wanted = parser.parse_args()
    on = device.choose(wanted.device)
    if wanted.memory:
        memory(on, wanted.megapixels)
        return 0
    ours, obvious = Ours(on), Obvious(MODEL, FACTOR, torch.device(on.kind))
    whole(ours, obvious, *map(int, wanted.size.split("x")))
    thumbnails(ours, obvious, wanted.thumbnails)
    alone = ["--memory", "--device", wanted.device, "--megapixels", str(wanted.megapixels)]
    return subprocess.run([sys.executable, "-m", "benchmarks.pipeline", *alone]).returncode


if __name__ == "__main__":
    sys.exit(main())
