"""16 jobs at once through a real worker, with its queue and store; the peer is one job after the other.

python -m benchmarks.gpu.jobs --device cuda
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.gpu import part
from benchmarks.gpu.embedded import MODEL, Running, upres
from benchmarks.gpu.part import Checks, fact
from benchmarks.gpu.right_pixels import LEAST_DB, Reference
from benchmarks.pipeline import photo
from benchmarks.report import emit
from upres.client.sdk import Upscaled
from upres.models import bundled
from upres.worker.model import open_folder

ALONE = 3
"""Jobs that are done one after the other; the first one, which fills caches, is not counted."""


def together(running: Running, files: list[bytes]) -> tuple[list[Upscaled], float]:
    """Run a job for each file at the same time; return their results, and the seconds until the last one has ended."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(len(files)) as pool:
        made = list(pool.map(lambda file: running.client.upscale(file, 4, output_format="png"), files))
    return made, time.perf_counter() - begin


def measure(checks: Checks, running: Running, reference: Reference, files: list[bytes]) -> None:
    """Print jobs per second, and check the pixels of each."""
    alone = [together(running, [file])[1] for file in files[:ALONE]][1:]
    made, seconds = together(running, files[ALONE:])
    per_second, peer = len(made) / seconds, len(alone) / sum(alone)
    emit("jobs.at_once", per_second, "jobs/s", "one after the other", peer)
    for stage in made[0].result.seconds:
        took = sum(one.result.seconds[stage] for one in made) / len(made)
        emit(f"jobs.{stage}", took, "s", "all jobs", seconds)
    fact("jobs: device of the worker", made[0].result.device)
    pairs = enumerate(zip(files[ALONE:], made, strict=True))
    found = [reference.psnr(checks, f"jobs.{number}", given, one.download()) for number, (given, one) in pairs]
    emit("jobs.worst_pixels", min(found), "dB", "least", LEAST_DB)


def main() -> int:
    """Print one JSON line per figure."""
    parser = part.parser("jobs", __doc__)
    parser.add_argument("--size", type=part.size, default=(1920, 1080), metavar="WxH", help="of the jobs' images")
    parser.add_argument("--jobs", type=int, default=16)
    wanted, checks = parser.parse_args(), Checks()
    width, height = wanted.size
    files = [photo(width - number, height) for number in range(ALONE + wanted.jobs)]  # equal ones are done once
    model = open_folder(list(bundled.versions(MODEL).values())[-1])
    with (
        checks.of("upres"),
        upres(wanted.device) as running,
        Reference(model, wanted.device) as reference,
        running.worker("worker") as child,
    ):
        running.wait_for(running.client.submit(photo(32, 32), 4).job_id, child)  # it is ready then
        measure(checks, running, reference, files)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
