"""Waits until a condition is true, with a timeout."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], object], seconds: float = 30) -> None:
    """Return as soon as `true()` is true. Raises AssertionError after the timeout."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
