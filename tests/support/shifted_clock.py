"""`python -m tests.support.shifted_clock MODULE …`: run a module in a process whose clock other programs do not share.

SIGUSR1 sets its clock two days ahead, SIGUSR2 two days back, and SIGHUP right again. Only the clock of the calendar
changes, for all Python code of the process (time-machine); monotonic clocks go on, as when an operator sets the time.
"""

import runpy
import signal
import sys
import time
from datetime import timedelta
from types import FrameType

import time_machine

DAYS = {signal.SIGUSR1: 2, signal.SIGUSR2: -2, signal.SIGHUP: 0}


class Clock:
    """The clock of this process."""

    def __init__(self) -> None:
        self._offset = timedelta()
        self._travel: time_machine.travel | None = None

    def shift(self, number: int, frame: FrameType | None) -> None:
        """Set the clock; a signal handler."""
        if self._travel:
            self._travel.stop()
        offset = timedelta(days=DAYS[signal.Signals(number)])
        self._travel = time_machine.travel(time.time() + offset.total_seconds()) if offset else None
        if self._travel:
            self._travel.start()


if __name__ == "__main__":
    clock = Clock()
    for number in DAYS:
        signal.signal(number, clock.shift)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
