"""What the parts of `make gpu` share: their arguments, what they print, and how they say what is wrong.

It imports no torch: parts that need it import right_pixels.py.
"""

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


def parser(module: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of a part's arguments. SIGTERM, when its time has run out, ends the part in order."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu.{module}", description=about)
    made.add_argument("--device", choices=["cuda", "cpu"], required=True, help="cpu: an imitation, without a GPU")
    return made


def size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT. Raises ValueError."""
    width, height = map(int, text.split("x"))
    return width, height


def fact(name: str, value: object) -> None:
    """Print something that is no figure, such as a version."""
    print(json.dumps({"fact": name, "value": str(value)}), flush=True)


def missing(what: str, why: object) -> None:
    """Print what could not be measured here, which is no fault of upres."""
    print(json.dumps({"missing": f"{what}: {why}"}), flush=True)


class Checks:
    """Collects what is wrong, so that one fault does not hide the next one. `code` is the exit code."""

    def __init__(self) -> None:
        self.code = 0

    def expect(self, true: bool, otherwise: str) -> None:
        """Print `otherwise` as wrong if the condition is false."""
        if not true:
            print(json.dumps({"wrong": otherwise}), flush=True)
            self.code = 1

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Turn an error within the block into something that is wrong, so that the next check can follow."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            text = str(error).splitlines() or [""]
            self.expect(False, f"{what}: {type(error).__name__}: {text[0]}")
