"""The whole service, over HTTP: how long a tiny job takes, and what slots bring.

    python -m benchmarks.service
    python -m benchmarks.service --docs     and the plot of benchmarks/RESULTS.md

A 16×16 image from POST to the terminal event on its stream, against a bare round trip through an RQ
worker in a thread; jobs a second with 1, 2, 4 and 8 slots; and what telling a tile costs.
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
    """A 16×16 PNG file, each time another: the result of one that was seen would be reused."""
    out = io.BytesIO()
    pixels = np.random.default_rng().integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def milliseconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median of the rounds, after three that do not count."""
    times = []
    for _ in range(rounds + 3):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[3:]) * 1000


class ThreadWorker(SimpleWorker):
    """RQ's in-process worker, for a thread."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        """Only the main thread could."""


def answer(name: str, url: str) -> None:
    """A job that only answers."""
    Redis.from_url(url).rpush(name, 1)


def bare_rq(local: Local) -> float:
    """Milliseconds from enqueuing to the answer of a job that only answers, on the same Redis."""
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
    """A tiny job, and the bare round trip with upres's own worker stopped."""
    with Local() as local:
        with Client(local.url) as client:
            ours = milliseconds(lambda: client.upscale(tiny(), 2))
        local.stop("worker")
        emit("latency.tiny_job.p50", ours, "ms", "bare RQ round trip", bare_rq(local))


def slots() -> dict[str, float]:
    """Small photos, all submitted at once, with so many slots against one: jobs a second."""
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
    """One progress event, against the time of the tile that it tells of."""
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
    """One JSON line per figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__.partition("\n")[0])
    parser.add_argument("--docs", action="store_true", help="write the plot of benchmarks/RESULTS.md")
    options = parser.parse_args()
    latency()
    rates = slots()
    if options.docs:
        (DOCS / "slots.svg").write_text(bars("Jobs a second by slots, one worker", rates))
    telling()
    return 0


if __name__ == "__main__":
    sys.exit(main())
