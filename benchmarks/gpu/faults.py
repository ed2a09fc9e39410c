"""A real worker whose device breaks down in a job: it ends with exit code 75, and the next worker does the job.

python -m benchmarks.gpu.faults --device cuda
"""

import sys

from benchmarks.gpu import part
from benchmarks.gpu.embedded import MODEL, Running, upres
from benchmarks.gpu.part import Checks, fact
from benchmarks.gpu.right_pixels import LEAST_DB, Reference
from benchmarks.gpu.worker import FAULTS
from benchmarks.pipeline import photo
from benchmarks.report import emit
from upres.core.schema import Started
from upres.embedded.child import ChildDied
from upres.models import bundled
from upres.worker.model import open_folder
from upres.worker.service import RESTART

BREAKS_DOWN = "the device broke down: "


def check(checks: Checks, running: Running, reference: Reference, fault: str, given: bytes) -> None:
    """Let one worker meet a fault in its job, and another one do the job."""
    job = running.client.submit(given, 4, output_format="png").job_id
    with running.worker(f"worker with a bad {fault}", "--fault", fault) as broken:
        try:
            running.wait_for(job, broken)
            checks.expect(False, f"{fault}: the device did not break down, and the job was done")
            return
        except ChildDied:
            code = broken.poll()
    log = broken.log.read_text(errors="replace")
    said = next((line.partition(BREAKS_DOWN)[2] for line in log.splitlines() if BREAKS_DOWN in line), "nothing")
    fact(f"{fault}: the device says", said)
    fact(f"{fault}: exit code of the worker", code)
    checks.expect(code == RESTART, f"{fault}: the worker ended with {code} instead of {RESTART}")
    checks.expect(said != "nothing", f"{fault}: the worker ended for another reason than its device; see the log")
    with running.worker(f"worker after a bad {fault}") as sound:
        running.wait_for(job, sound)
    attempts = [event.attempt for event in running.told(job) if isinstance(event, Started)]
    checks.expect(attempts == [1, 2], f"{fault}: the job has the attempts {attempts} instead of 1 and 2")
    name = f"faults.{fault}.next_worker"
    emit(name, reference.psnr(checks, name, given, running.client.download(job)), "dB", "least", LEAST_DB)


def main() -> int:
    """Print one JSON line per fact and figure."""
    parser = part.parser("faults", __doc__)
    parser.add_argument("--size", type=part.size, default=(1280, 720), metavar="WxH", help="of the job's image")
    parser.add_argument("--faults", nargs="+", choices=sorted(FAULTS), default=sorted(FAULTS))
    wanted, checks = parser.parse_args(), Checks()
    model = open_folder(list(bundled.versions(MODEL).values())[-1])
    with checks.of("upres"), upres(wanted.device) as running, Reference(model, wanted.device) as reference:
        for number, fault in enumerate(wanted.faults):
            given = photo(wanted.size[0] - number, wanted.size[1])  # another image, as equal ones are done once
            with checks.of(fault):
                check(checks, running, reference, fault, given)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
