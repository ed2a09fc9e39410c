"""`python -m upres.worker`: one worker process."""

import argparse
import os
import signal
import sys
from collections.abc import Callable

from upres.core import logs, tracing
from upres.core.errors import NotInstalled, UpresError
from upres.core.settings import Settings


def main() -> int:
    """Serve until told to stop; 1 and one clear line when the worker cannot start, else see `serve`."""
    parser = argparse.ArgumentParser(
        prog="python -m upres.worker",
        description="Take jobs from the queue and enlarge their images. "
        "Settings come from UPRES_* variables (see core/settings.py) and AWS's own credential variables.",
    )
    parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until jobs are taken. A container's first process would not hear of it otherwise, and whatever loads cannot be
        # interrupted in order.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        serve = _service()
        settings = Settings.from_environment()
        logs.begin(settings)
        tracing.begin("worker")
        return serve(settings)
    except UpresError as error:
        print(f"worker: {error} [{error.code}]", file=sys.stderr)
        return 1


def _service() -> Callable[[Settings], int]:
    """What serves; importing it takes half a second. Raises NotInstalled."""
    try:
        from upres.worker.service import serve
    except ModuleNotFoundError as error:
        raise NotInstalled(error, "The worker", "worker") from error
    return serve


if __name__ == "__main__":
    sys.exit(main())
