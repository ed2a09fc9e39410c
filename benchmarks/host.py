"""All of a job but the network: what the host can do beside a device that costs no time.

    python -m benchmarks.host [--jobs N] [--formats png jpeg webp]

A real worker runs with networks that cost nothing but the copy of their output, so that the rest is left: fetch,
decode, cut, paste, encode, upload, events. Photos of 1920×1080 pixels at factor 4 wait in the queue before it starts.
Printed are jobs per second and core of the worker, with the original made on request and with the result, against the
peer: Pillow, which decodes, repeats and encodes both images of a job in one thread with its default settings, without
store and queue; and the processor time of each stage.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import psutil
from PIL import Image
from redis import Redis

from benchmarks.report import emit
from upres.client import Client
from upres.core import events, keys
from upres.core.queue import connect
from upres.core.schema import OriginalMode, OutputFormat, Result, StageRead, Started, Succeeded
from upres.embedded.stack import Local
from upres.worker import golden
from upres.worker.__main__ import main as work
from upres.worker.engine import runtimes
from upres.worker.engine.compute import Finish, Pixels
from upres.worker.model import Model

SIDES, FACTOR = (1920, 1080), 4
JOBS = 12
PHOTO = Path(__file__).parent.parent / "samples" / "astronaut.png"


class Repeating:
    """Networks that repeat the pixels of the first window of each shape: all that is left of a device is the copy."""

    precision, batch_pixels, batches_ahead, warm_up_side = "none", 2 * 640 * 640, 1, 64
    seconds: float | None = None

    def __init__(self, model: Model, *others: Any) -> None:
        self._made: dict[tuple[int, ...], Pixels] = {}

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Return a copy of what was made first (see Compute)."""
        shape = (len(windows), *windows[0].shape)
        if shape not in self._made:
            self._made[shape] = np.stack(windows).repeat(factor, 1).repeat(factor, 2)
        return self._made[shape].copy

    def probe(self) -> None:
        """It is never lost (see Compute)."""

    def largest_batch(self, factor: int) -> None:
        """It has no memory of its own (see Compute)."""


def photos(numbers: range) -> Iterator[bytes]:
    """Different photos, as JPEG files of some 600 KB."""
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB").resize(SIDES, Image.Resampling.BICUBIC)).copy()
    for number in numbers:
        pixels[0, 0] = number, number // 256, 0
        out = io.BytesIO()
        Image.fromarray(np.roll(pixels, 7 * number, 1)).save(out, "JPEG", quality=95)
        yield out.getvalue()


def pillow(data: bytes, format: str) -> None:
    """Decode a photo, and encode both images of a job."""
    with Image.open(io.BytesIO(data)) as image:
        size = image.width * FACTOR, image.height * FACTOR
        for resampling in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC):
            image.resize(size, resampling).save(io.BytesIO(), format)


class Seen(NamedTuple):
    """What was measured of some jobs."""

    per_second: float
    per_core: float
    """Jobs per second of processor time, of the worker and its children."""
    seconds: dict[StageRead, float]
    """Median of each stage."""


def measure(local: Local, redis: Redis, format: OutputFormat, count: int) -> None:
    """Print the figures of one output format."""
    files = list(photos(range(2 * count)))
    lazy, eager = (
        jobs_of(local, redis, files[first::2], format, original)
        for first, original in enumerate(get_args(OriginalMode))
    )
    peer = 1 / statistics.median(_seconds(lambda: pillow(files[0], format)) for _ in range(3))
    emit(f"host.{format}.jobs_per_second", lazy.per_second, "jobs/s", "Pillow in one thread", peer)
    emit(f"host.{format}.per_core", lazy.per_core, "jobs/s of one core", "Pillow in one thread", peer)
    emit(f"host.{format}.eager.per_core", eager.per_core, "jobs/s of one core", "original: lazy", lazy.per_core)
    for stage, took in lazy.seconds.items():
        cores = len(os.sched_getaffinity(0))
        emit(f"host.{format}.{stage}", took, f"s, {cores} cores", "all stages", sum(lazy.seconds.values()))


def jobs_of(local: Local, redis: Redis, files: list[bytes], format: OutputFormat, original: OriginalMode) -> Seen:
    """Let a worker do a job for each file."""
    count = len(files)
    with Client(local.url) as client:
        jobs = [client.submit(file, FACTOR, output_format=format, original=original).job_id for file in files]
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "benchmarks.host", "--worker"]
        worker = subprocess.Popen(command, env={**os.environ, **local.environment}, stderr=log)
        process, before, now = psutil.Process(worker.pid), 0.0, 0.0
        while not all(_result(redis, job) for job in jobs):
            assert worker.poll() is None, "the worker ended"
            now = _processor_seconds(process)
            if not redis.llen(keys.WAITING) < count:
                before = now  # its start does not count
            time.sleep(0.02)
        worker.terminate()
        worker.wait()
    told = [event for job in jobs for _, event in events.read(redis, job)]
    began = min(event.at for event in told if isinstance(event, Started))
    ended = max(event.at for event in told if isinstance(event, Succeeded))
    results = [result for job in jobs if (result := _result(redis, job))]
    medians = {stage: statistics.median(one.seconds[stage] for one in results) for stage in results[0].seconds}
    return Seen(count / (ended - began).total_seconds(), count / (now - before), medians)


def _result(redis: Redis, job_id: str) -> Result | None:
    last = events.read(redis, job_id)[-1][1]
    return last.result if isinstance(last, Succeeded) else None


def _processor_seconds(process: psutil.Process) -> float:
    """Seconds of all cores that a process and its children have used."""
    used = [process.cpu_times(), *(child.cpu_times() for child in process.children(recursive=True))]
    return sum(one.user + one.system for one in used)


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> int:
    """Print one JSON line per figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help=f"jobs of each format; default: {JOBS}")
    parser.add_argument("--formats", nargs="+", default=["png", "jpeg", "webp"], metavar="FORMAT")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.worker:
        untyped: Any = runtimes
        untyped.choose = Repeating
        golden.check = lambda *images: None  # what it makes is not the model's
        sys.argv = ["upres.worker"]
        return work()
    with Local(environment={"UPRES_MODEL": "faithful"}) as local, connect(local.settings) as redis:
        local.stop("worker")
        for format in wanted.formats:
            measure(local, redis, format, wanted.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
