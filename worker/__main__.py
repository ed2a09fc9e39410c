"""`python -m worker`: one worker process."""

import argparse
import logging
import sys

from core.errors import UpresError
from core.settings import Settings
from worker.service import serve


def main() -> int:
    """Serve until told to stop; 1 when the worker cannot start (with one clear line) or go on."""
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description="Take jobs from the queue and enlarge their images. "
        "Settings come from UPRES_* variables (see core/settings.py) and AWS's own credential variables.",
    )
    parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("upres").setLevel(logging.INFO)
    try:
        told_to_stop = serve(Settings.from_environment())
    except UpresError as error:
        print(f"worker: {error} [{error.code}]", file=sys.stderr)
        return 1
    return 0 if told_to_stop else 1


if __name__ == "__main__":
    sys.exit(main())
