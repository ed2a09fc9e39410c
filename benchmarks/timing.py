"""Timing of work on a device."""

import time
from collections.abc import Callable

import torch


def best(work: Callable[[], object], runs: int, on: torch.device) -> float:
    """The fastest of `runs` runs in seconds, after one warm-up run; waits until the device has finished."""
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
