"""The command `upres FOLDER`, against the worker's own throughput.

    python -m benchmarks.batch

500 small photos, once waiting in the queue before the worker begins, from the first event of a worker to the last;
and once, other pixels, by the command: from its start to its end, with reading, submitting, waiting and writing.
The worker has one core of this machine to itself, as it has a machine to itself elsewhere; the command, the function,
Redis and the store share the other.
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
"""Cores."""
PHOTO = Path(__file__).parent.parent / "samples" / "chelsea.png"


def photos(seed: int, side: int = SIDE) -> Iterator[bytes]:
    """So many photos as PNG files, none like another."""
    rng = np.random.default_rng(seed)
    with Image.open(PHOTO) as image:
        whole = image.convert("RGB")
        for _ in range(IMAGES):
            left, top = (int(rng.integers(0, length - side)) for length in whole.size)
            piece = np.asarray(whole.crop((left, top, left + side, top + side))).copy()
            piece[0, 0] = rng.integers(0, 256, 3)
            out = io.BytesIO()
            Image.fromarray(piece).save(out, "PNG")
            yield out.getvalue()


def alone(local: Local, redis: Redis) -> float:
    """Seconds that the worker takes for jobs that all wait for it."""
    local.stop("worker")
    with Client(local.url) as client:
        jobs = [client.submit(photo).job_id for photo in photos(1)]
        os.sched_setaffinity(0, WORKERS)  # what is started now has that core, and counts on no more
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
    """Seconds that the command takes for as many."""
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
    """Print the figure."""
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
