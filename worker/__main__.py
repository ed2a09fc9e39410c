"""`python -m upres.worker`: one worker process."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from upres.core import logs, tracing
from upres.core.errors import UpresError, not_installed
from upres.core.settings import Settings


def main() -> int:
    """Run a worker and return its exit code (see `serve`); 1, after one line on stderr, when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m upres.worker",
        description="Take jobs from the queue and enlarge their images. "
        "Settings come from UPRES_* variables (see core/settings.py) and AWS's own credential variables.",
    )
    parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        # While the worker loads, a signal ends the process at once: loading cannot be interrupted cleanly, and without
        # a handler the first process of a container ignores SIGTERM. `serve` installs its own handlers later.
        signal.signal(number, lambda *_: _end_now())
    try:
        serve = _service()
        settings = Settings.from_environment()
        logs.begin(settings)
        tracing.begin("worker")
        return serve(settings)
    except UpresError as error:
        print(f"worker: {error} [{error.code}]", file=sys.stderr)
        return 1


def _end_now() -> NoReturn:
    """End the process; it did not die of what it was loading."""
    for name in ("loading_notes", "version_trials"):
        if module := sys.modules.get(f"upres.worker.{name}"):
            module.forget()
    os._exit(0)


def _service() -> Callable[[Settings], int]:
    """Import and return `serve`, which takes half a second. Raises NotInstalled when a package is missing."""
    try:
        from upres.worker.service import serve
    except ModuleNotFoundError as error:
        raise not_installed(error, "The worker", "worker") from error
    return serve


if __name__ == "__main__":
    sys.exit(main())
