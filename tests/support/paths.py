"""Where things lie in the checkout, and beside it."""

import os
from pathlib import Path

import pytest

from benchmarks.quality import PAIRS

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "samples"
MODEL = ROOT / "models" / "faithful" / "1"


def pairs() -> Path:
    """The benchmark pairs; they are not part of the project, but CI has them."""
    if not PAIRS.exists() and not os.environ.get("CI"):
        pytest.skip(f"no benchmark pairs in {PAIRS}")
    return PAIRS
