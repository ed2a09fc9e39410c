"""Signals that end the command: it stops cleanly, and then ends by the same signal, so that a shell loop ends too."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at Ctrl-C, SIGTERM and SIGHUP, and end the process by that signal after it.

    A signal that is ignored, as by nohup or in a background job of a shell, stays ignored.
    """
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        end_by_signal(interrupt)


def end_by_signal(interrupt: KeyboardInterrupt) -> NoReturn:
    """End this process at once by the signal that interrupted it, without waiting for its threads."""
    number: int = interrupt.args[0] if interrupt.args else signal.SIGINT
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # only where the signal is blocked


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt in the main thread. A second signal ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt(number)
