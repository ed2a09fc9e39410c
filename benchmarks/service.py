"""The whole service over HTTP: the latency of a tiny job, throughput by slots, and the cost of a progress event.

    python -m benchmarks.service
    python -m benchmarks.service --docs     also writes the plot of benchmarks/RESULTS.md

Latency: a 16×16 image from POST to the terminal event on its stream; the peer is a round trip through an RQ worker in a
thread. Throughput: jobs per second with 1, 2, 4 and 8 slots. Progress event: its cost compared with the time of a tile.
"""

import argparse
import io
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker

from benchmarks.pipeline import photo
from benchmarks.plot import bars
from benchmarks.report import emit
from upres.client import Client
from upres.core import events
from upres.core.queue import connect
from upres.core.schema import Progress, Queued, now
from upres.embedded.stack import Local

DOCS = Path(__file__).parent.parent / "docs"
ROUNDS = 50
JOBS = 40


def tiny() -> bytes:
    """A random 16×16 image as a PNG file. Random, because the result of identical work would be reused."""
    out = io.BytesIO()
    pixels = np.random.default_rng().integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def milliseconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median time of `work` in milliseconds, after three warm-up rounds."""
    times = []
    for _ in range(rounds + 3):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[3:]) * 1000


class ThreadWorker(SimpleWorker):
    """RQ's in-process worker, adapted to run in a thread."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        """Do nothing: Python allows signal handlers only in the main thread."""


def answer(name: str, url: str) -> None:
    """The RQ job of the peer: pushes one answer onto a list."""
    Redis.from_url(url).rpush(name, 1)


def bare_rq(local: Local) -> float:
    """Median milliseconds from enqueuing an `answer` job in RQ until its answer arrives, on the same Redis."""
    url = local.settings.redis_url
    with connect(local.settings) as redis, connect(local.settings) as waiting:
        name = secrets.token_hex(8)
        queue = Queue(name, connection=redis, serializer=JSONSerializer)
        worker = ThreadWorker([queue], connection=waiting, serializer=JSONSerializer)
        thread = threading.Thread(target=worker.work, kwargs={"max_jobs": ROUNDS + 3, "logging_level": "ERROR"})
        thread.start()

        def round_trip() -> None:
            queue.enqueue("benchmarks.service.answer", name, url, result_ttl=0)
            redis.blpop([name])

        median = milliseconds(round_trip)
        thread.join()
    return median


def latency() -> None:
    """Print the latency of a tiny job; the peer runs while the worker of upres is stopped."""
    with Local() as local:
        with Client(local.url) as client:
            ours = milliseconds(lambda: client.upscale(tiny(), 2))
        local.stop("worker")
        emit("latency.tiny_job.p50", ours, "ms", "bare RQ round trip", bare_rq(local))


def slots() -> dict[str, float]:
    """Throughput in jobs per second, by number of slots: small photos, all submitted at once."""
    sides = np.random.default_rng(0).integers(128, 257, (JOBS, 2))
    files = [photo(int(width), int(height)) for width, height in sides]
    rates: dict[str, float] = {}
    for count in (1, 2, 4, 8):
        with Local(environment={"UPRES_SLOTS": str(count)}) as local, ThreadPoolExecutor(JOBS) as pool:
            clients = [Client(local.url) for _ in range(JOBS)]
            clients[0].upscale(files[0])
            begin = time.perf_counter()
            list(pool.map(lambda pair: pair[0].upscale(pair[1]), zip(clients, files, strict=True)))
            rate = JOBS / (time.perf_counter() - begin)
            for client in clients:
                client.close()
        rates[str(count)] = rate
        emit(f"slots.{count}", rate, "jobs/s", "one slot", rates["1"])
    return rates


def telling() -> None:
    """Print the time to append one progress event; the peer is the time of the tile that it reports."""
    with Local() as local, Client(local.url) as client, connect(local.settings) as redis:
        result = client.upscale(photo(640, 640)).result
        emit("events.cost", _append(redis), "ms", "one tile of 640×640", result.seconds["upscale"] * 1000)


def _append(redis: Redis) -> float:
    job_id = secrets.token_hex(16)
    queued = Queued(
        job_id=job_id,
        upscale_factor=4,
        model="m",
        model_version="1",
        output_format="png",
        position=0,
        deadline=now(),
    )
    events.append(redis, queued)
    event = Progress(job_id=job_id, stage="upscale", tiles_done=1, tiles_total=2, percent=50)
    return milliseconds(lambda: events.append(redis, event), 200)


def main() -> int:
    """Print one JSON line per figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__.partition("\n")[0])
    parser.add_argument("--docs", action="store_true", help="also write the plot of benchmarks/RESULTS.md")
    options = parser.parse_args()
    latency()
    rates = slots()
    if options.docs:
        (DOCS / "slots.svg").write_text(bars("Jobs a second by slots, one worker", rates))
    telling()
    return 0


if __name__ == "__main__":
    sys.exit(main())
