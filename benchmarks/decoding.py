"""What it costs that each image is decoded in a confined process of its own.

    python -m benchmarks.decoding

Prints milliseconds per image; the peer is the same decoder in the process itself. Once the images come one by one, as
they do when a worker is not busy, and once without a pause, so that each waits for the fork of its process.
"""

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks.codecs import PHOTO
from benchmarks.report import emit
from upres.worker.imaging import images
from upres.worker.imaging.decoding import Decoders

LIMIT = 16_000_000
PAUSE_SECONDS = 0.05


def fastest(work: Callable[[], object], runs: int, pause: float) -> float:
    """The fastest of `runs` runs, in milliseconds; before each one it waits for `pause` seconds."""
    took = []
    for _ in range(runs):
        time.sleep(pause)
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return min(took) * 1000


def main() -> int:
    """Print two JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="runs of each kind; the fastest counts (default: 100)")
    runs: int = parser.parse_args().runs
    data = PHOTO.read_bytes()
    with Decoders(1, LIMIT) as decoders:
        decoders.start()
        for name, pause in (("one_by_one", PAUSE_SECONDS), ("without_pause", 0.0)):
            here = fastest(lambda: images.decode(data, LIMIT), runs, pause)
            there = fastest(lambda: decoders.decode(data, LIMIT), runs, pause)
            emit(f"decode.{name}", there, "ms", "in the process itself", here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
