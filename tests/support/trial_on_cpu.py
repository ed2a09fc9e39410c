"""`python -m tests.support.trial_on_cpu`: a trial with the CPU build of torch, in which OpenVINO counts as faster."""

import sys

from tests.support import spandrel_on_cpu
from upres.worker.engine import trial_process
from upres.worker.engine.openvino_compute import OpenVinoCompute

spandrel_on_cpu.declare()
trial_process._seconds = lambda factor, batch, compute: 1.0 if isinstance(compute, OpenVinoCompute) else 2.0

if __name__ == "__main__":
    sys.exit(trial_process.main())
