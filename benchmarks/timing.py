"""How long something takes."""

import time
from collections.abc import Callable

import torch


def best(work: Callable[[], object], runs: int, on: torch.device) -> float:
    """Seconds of the fastest run, until the device is through, after one that does not count."""
    runtime = torch.get_device_module(on)
    work()
    times = []
    for _ in range(runs):
        runtime.synchronize()
        begin = time.perf_counter()
        work()
        runtime.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)
