"""`python -m tests.support.trial_on_cpu FOLDER PARENT`: a trial with the CPU build of torch, where OpenVINO is faster.

`--version PARENT`: the trial of a whole version (worker/version_trial_process.py).
"""

import sys

from tests.support import spandrel_on_cpu
from upres.worker import version_trial_process
from upres.worker.engine import trial_process
from upres.worker.engine.openvino_compute import OpenVinoCompute

spandrel_on_cpu.declare()
trial_process._seconds = lambda factor, batch, compute: 1.0 if isinstance(compute, OpenVinoCompute) else 2.0

if __name__ == "__main__":
    if sys.argv[1] == "--version":
        del sys.argv[1]
        sys.exit(version_trial_process.main())
    sys.exit(trial_process.main())
