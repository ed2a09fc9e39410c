"""Runs a part of the worker in a process of its own: what that does not survive ends no job."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from upres.worker.engine.device import host_memory
from upres.worker.imaging.sandbox import die_with

ENVIRONMENT = (
    *("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
)
"""Variables of the worker's environment that such a process gets: among them all that choose the GPU. The others hold
credentials and addresses."""
BEAT_SECONDS = 2.0
"""Interval in seconds at which `meanwhile` is called."""

Ended = subprocess.CompletedProcess[bytes]


def run(
    command: Sequence[str], given: bytes, seconds: float, meanwhile: Callable[[], object] = lambda: None, **more: str
) -> Ended:
    """Run a program to its end, with `given` on its standard input and the variables `more`.

    Another thread calls `meanwhile`, which must not raise, every BEAT_SECONDS. Raises subprocess.TimeoutExpired after
    `seconds`, when the program has been killed, and OSError when it cannot be started.
    """
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), **more}
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            meanwhile()

    threading.Thread(target=beat, name="trial", daemon=True).start()
    try:
        return subprocess.run(command, input=given, capture_output=True, env=environment, timeout=seconds)
    finally:
        ended.set()


def how_it_ended(ended: Ended) -> str:
    """Say how a process ended that gave no answer: by which signal, or with which code and last line of its errors."""
    if ended.returncode < 0:
        name = str(-ended.returncode)
        with suppress(ValueError):
            name = signal.Signals(-ended.returncode).name
        return f"its process was ended by signal {name}"
    lines = ended.stderr.decode(errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"its process failed with code {ended.returncode} ({said[:300]})"


def confine(parent: int, most_memory: bool = True) -> None:
    """End this process with its parent, and leave the memory to the parent's jobs.

    `most_memory`: limit it to the memory that is free now; drivers of GPUs reserve more than they use.
    """
    die_with(parent)
    if sys.platform == "linux":
        if most_memory:
            free, most = host_memory()[0], resource.getrlimit(resource.RLIMIT_DATA)[1]
            limit = free if most == resource.RLIM_INFINITY else min(free, most)  # nobody may raise the hard limit
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with suppress(OSError):  # /proc may be read-only
            Path("/proc/self/oom_score_adj").write_text("1000")
