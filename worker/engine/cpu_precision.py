"""Which number format of a network is faster on this CPU: bfloat16 or float32.

With AMX bfloat16 is much faster. With AVX-512's bfloat16 alone it depends on the processor: twice as fast on AMD's
Zen 4, half as fast on Intel's Sapphire Rapids when a virtual machine hides AMX. So there both are tried once, and the
outcome is kept for the processor and the kind of network.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from upres.core.manifest import Network
from upres.worker.engine.device import processor
from upres.worker.model import mark_used

log = logging.getLogger("upres.worker")

BFLOAT16, FLOAT32 = "bf16", "f32"
"""OpenVINO's names."""
SIDE = 64
"""Side in pixels of the window that is computed in both."""
RUNS = 5
"""Runs of each that are timed, in turns; the fastest one counts."""
LEAST_GAIN = 1.25
"""How much faster bfloat16 has to be than float32, which is more exact. So in networks that take the same time in both,
chance does not decide, and all workers of a fleet compute the same pixels."""

_FOUND: dict[str, str] = {}
"""What was found in this process. A model that is loaded again computes the same pixels, even if no folder keeps it."""

Compile = Callable[[str], Any]
"""Compiles a network for a precision."""


@cache
def must_be_tried(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this CPU has instructions for bfloat16, but may be faster in float32 nevertheless."""
    with suppress(OSError):
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "").split()
        return "avx512_bf16" in flags and "amx_bf16" not in flags
    return False


def fastest(compile_for: Compile, network: Network, folder: Path | None) -> str:
    """Return bfloat16 if a network takes clearly less processor time in it. `folder` keeps what was found."""
    if not must_be_tried():
        return BFLOAT16
    digest = _digest(network)
    known = folder / f"precision-{digest}" if folder else None
    if found := _FOUND.get(digest) or (_read(known) if known else None):
        return _FOUND.setdefault(digest, found)
    begin = time.perf_counter()
    compiled = {precision: compile_for(precision) for precision in (BFLOAT16, FLOAT32)}
    took = {precision: min(times) for precision, times in _timed(compiled).items()}
    factor, spent = took[FLOAT32] / took[BFLOAT16], time.perf_counter() - begin
    found = _FOUND.setdefault(digest, BFLOAT16 if factor >= LEAST_GAIN else FLOAT32)
    log.info("%s runs in %s: bfloat16 has %.2f times the speed of float32 here (tried once, %.1f s)",
             network.file, found, factor, spent)  # fmt: skip
    if known:
        with suppress(OSError):  # the next start tries it again
            known.parent.mkdir(parents=True, exist_ok=True)
            known.write_text(found)
    return found


def _timed(compiled: dict[str, Any]) -> dict[str, list[float]]:
    """Return seconds of processor time of each, which hardly depend on what else runs here."""
    window = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    took: dict[str, list[float]] = {precision: [] for precision in compiled}
    for one in compiled.values():
        one(window)
    for _ in range(RUNS):
        for precision, one in compiled.items():
            begin = time.process_time()
            one(window)
            took[precision].append(time.process_time() - begin)
    return took


def _read(known: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        found = known.read_text()
        mark_used(known)
        return found if found in (BFLOAT16, FLOAT32) else None
    return None


def _digest(network: Network) -> str:
    about = f"{processor()} {openvino.__version__} {network.kind}"
    return hashlib.sha256(about.encode()).hexdigest()[:32]
