"""A real worker that may use 2, 1 and 0.5 GB of its device's memory: right pixels, and limits that are remembered.

    python -m benchmarks.gpu.memory --device cuda

With each amount one worker does a job. If it runs out of memory, a second one does another job, and begins with what
the first has found out.
"""

import sys
from typing import NamedTuple

from benchmarks.gpu import part
from benchmarks.gpu.embedded import MODEL, Running, upres
from benchmarks.gpu.part import Checks, missing
from benchmarks.gpu.right_pixels import LEAST_DB, Reference
from benchmarks.pipeline import photo
from benchmarks.report import emit
from upres.core.tiling import TILE
from upres.models import bundled
from upres.worker.model import open_folder
from upres.worker.remembered_limits import StoredLimits

RAN_OUT = "the device ran out of memory; from now on"
"""What a worker logs each time when it makes its limits smaller."""
LIMITS = "upres:tile:*"


def check(checks: Checks, running: Running, reference: Reference, gigabytes: float, jobs: list[bytes]) -> None:
    """Let two workers with so much memory do a job each; only one if its memory suffices."""
    for key in running.redis.keys(LIMITS):
        running.redis.delete(key)
    first = do(checks, running, reference, gigabytes, 1, jobs[0])
    if first.all == 0:
        missing(f"remembered limits with {gigabytes:g} GB", "the job did not need more")
        return
    second = do(checks, running, reference, gigabytes, 2, jobs[1])
    name, what = (
        f"memory.{gigabytes:g}_gb",
        f"with {gigabytes:g} GB the first worker ran out of memory {first.all} times",
    )
    emit(f"{name}.ran_out", first.all, "times", "in the second worker's job, plus one", second.in_the_job + 1)
    stored = [StoredLimits.model_validate_json(running.redis.get(key) or b"") for key in running.redis.keys(LIMITS)]
    for one in stored:
        emit(f"{name}.tile", one.tile, "pixels", "as long as all fits", TILE)
        for factor, most in one.batches.items():
            emit(f"{name}.batch_x{factor}", most, "pixels", "one window", one.tile**2)
    checks.expect(bool(stored), f"{what}, and no limit is remembered")
    again = f"{what}, and the second one, which began with what is remembered, {second.in_the_job} times in its job"
    checks.expect(second.in_the_job < first.all, again)


class RanOut(NamedTuple):
    """How often a worker ran out of memory, and made its limits smaller: in all, and from its job's start on."""

    all: int
    in_the_job: int


def do(checks: Checks, running: Running, reference: Reference, gigabytes: float, number: int, given: bytes) -> RanOut:
    """Let one worker with so much memory do a job, and check the pixels."""
    name = f"memory.{gigabytes:g}_gb.worker_{number}"
    job = running.client.submit(given, 4, output_format="png").job_id
    with running.worker(name, "--gigabytes", str(gigabytes)) as child:
        spent = running.wait_for(job, child).result.seconds
    emit(f"{name}.upscale", spent["upscale"], "s", "all stages", sum(spent.values()))
    emit(name, reference.psnr(checks, name, given, running.client.download(job)), "dB", "least", LEAST_DB)
    log = child.log.read_text(errors="replace")
    return RanOut(log.count(RAN_OUT), log.partition(f"job {job}: started")[2].count(RAN_OUT))


def main() -> int:
    """Print one JSON line per figure."""
    parser = part.parser("memory", __doc__)
    parser.add_argument("--size", type=part.size, default=(1920, 1080), metavar="WxH", help="of the jobs' images")
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[2, 1, 0.5])
    wanted, checks = parser.parse_args(), Checks()
    width, height = wanted.size
    model = open_folder(list(bundled.versions(MODEL).values())[-1])
    with checks.of("upres"), upres(wanted.device) as running, Reference(model, wanted.device) as reference:
        for number, gigabytes in enumerate(wanted.gigabytes):
            # Other images each time, as equal ones are done once.
            given = [photo(width - 2 * number - second, height) for second in (0, 1)]
            with checks.of(f"{gigabytes:g} GB"):
                check(checks, running, reference, gigabytes, given)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
