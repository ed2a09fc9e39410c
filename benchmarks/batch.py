"""The command `upres FOLDER`, against the worker's own throughput.

    python -m benchmarks.batch

500 small photos, once waiting in the queue before the worker begins, from the first event of a worker to the last;
and once, other pixels, by the command: from its start to its end, with reading, submitting, waiting and writing. The
command shares the machine's cores with the worker, so this is what it costs where it costs most. The best of three.
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
from client import Client
from core import events
from core.queue import connect
from core.schema import Started, Succeeded
from infra.local import Local, tool

IMAGES = 500
ROUNDS = 3
SIDE = 128
PHOTO = Path(__file__).parent.parent / "samples" / "chelsea.png"


def photos(seed: int) -> Iterator[bytes]:
    """So many photos as PNG files, none like another."""
    rng = np.random.default_rng(seed)
    with Image.open(PHOTO) as image:
        whole = image.convert("RGB")
        for _ in range(IMAGES):
            left, top = (int(rng.integers(0, side - SIDE)) for side in whole.size)
            piece = np.asarray(whole.crop((left, top, left + SIDE, top + SIDE))).copy()
            piece[0, 0] = rng.integers(0, 256, 3)
            out = io.BytesIO()
            Image.fromarray(piece).save(out, "PNG")
            yield out.getvalue()


def alone(local: Local, redis: Redis, seed: int) -> float:
    """Seconds that the worker takes for jobs that all wait for it."""
    local.stop("worker")
    with Client(local.url) as client:
        jobs = [client.submit(photo).job_id for photo in photos(seed)]
        local.start("worker")
        for job_id in jobs:
            client.wait(job_id)
    told = [event for job_id in jobs for _, event in events.read(redis, job_id)]
    begun: list[datetime] = [event.at for event in told if isinstance(event, Started)]
    ended: list[datetime] = [event.at for event in told if isinstance(event, Succeeded)]
    assert len(ended) == IMAGES
    return (max(ended) - min(begun)).total_seconds()


def command(local: Local, folder: Path, seed: int) -> float:
    """Seconds that the command takes for as many."""
    (folder / "in").mkdir()
    for number, photo in enumerate(photos(seed)):
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
    argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__).parse_args()
    peers, times = [], []
    with Local() as local, connect(local.settings) as redis:
        for seed in range(ROUNDS):
            peers.append(alone(local, redis, 2 * seed))
            with tempfile.TemporaryDirectory() as folder:
                times.append(command(local, Path(folder), 2 * seed + 1))
    peer, ours = min(peers), min(times)
    emit(f"upres FOLDER, {IMAGES} photos of {SIDE}×{SIDE}, ×4", ours, "s", "the worker alone", peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
