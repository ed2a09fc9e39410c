"""The command `upres FOLDER`, compared with the throughput of the worker alone.

    python -m benchmarks.batch

Worker alone: 500 small photos wait in the queue before the worker starts; measured from its first event to its last.
Command: 500 other photos; measured from its start to its end, with reading, submitting, waiting and writing. The worker
has one CPU core for itself, as if it had its own machine; command, function, Redis and store share another core.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image
from redis import Redis

from benchmarks.report import emit
from upres.client import Client
from upres.core import events
from upres.core.queue import connect
from upres.core.schema import Started, Succeeded
from upres.embedded.stack import Local, tool

IMAGES = 500
SIDE = 128
WORKERS, OTHERS = {0}, {1}
"""CPU cores: of the worker, and of all other processes."""
PHOTO = Path(__file__).parent.parent / "samples" / "chelsea.png"


def photos(seed: int, count: int = IMAGES, side: int = SIDE) -> Iterator[bytes]:
    """`count` different photos of side × side pixels, as PNG files."""
    rng = np.random.default_rng(seed)
    with Image.open(PHOTO) as image:
        whole = image.convert("RGB")
        for _ in range(count):
            left, top = (int(rng.integers(0, length - side)) for length in whole.size)
            piece = np.asarray(whole.crop((left, top, left + side, top + side))).copy()
            piece[0, 0] = rng.integers(0, 256, 3)
            out = io.BytesIO()
            Image.fromarray(piece).save(out, "PNG")
            yield out.getvalue()


def alone(local: Local, redis: Redis) -> float:
    """Seconds of the worker for jobs that all waited in the queue before it started."""
    local.stop("worker")
    with Client(local.url) as client:
        jobs = [client.submit(photo).job_id for photo in photos(1)]
        os.sched_setaffinity(0, WORKERS)  # inherited by the worker, which counts its cores by it
        local.start("worker")
        os.sched_setaffinity(0, OTHERS)
        for job_id in jobs:
            client.wait(job_id)
    entries = [event for job_id in jobs for _, event in events.read(redis, job_id)]
    begun: list[datetime] = [event.at for event in entries if isinstance(event, Started)]
    ended: list[datetime] = [event.at for event in entries if isinstance(event, Succeeded)]
    assert len(ended) == IMAGES
    return (max(ended) - min(begun)).total_seconds()


def command(local: Local, folder: Path) -> float:
    """Seconds of the command for the same number of photos."""
    (folder / "in").mkdir()
    for number, photo in enumerate(photos(2)):
        (folder / "in" / f"{number:03}.png").write_bytes(photo)
    begin = time.perf_counter()
    subprocess.run(
        [tool("upres"), str(folder / "in"), "--out", str(folder / "out")],
        env={**os.environ, "UPRES_URL": local.url},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - begin
    assert len(list((folder / "out").glob("*.png"))) == IMAGES
    return seconds


def main() -> int:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.parse_args()
    if not hasattr(os, "sched_setaffinity") or not os.sched_getaffinity(0) >= WORKERS | OTHERS:
        parser.error("this wants Linux and two cores, one of them for the worker alone.")
    with Local() as local, connect(local.settings) as redis, tempfile.TemporaryDirectory() as folder:
        for name in ("redis", "s3", "function"):
            local.children[name].process.cpu_affinity(list(OTHERS))
        peer = alone(local, redis)
        ours = command(local, Path(folder))
    emit(f"upres FOLDER, {IMAGES} photos of {SIDE}×{SIDE}, ×4", ours, "s", "the worker alone", peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
