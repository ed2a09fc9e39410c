"""Paths of files that tests use, inside and outside the repository."""

import os
from pathlib import Path

import pytest

from benchmarks.quality import PAIRS

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "samples"
MODEL = ROOT / "models" / "faithful" / "1"


def pairs() -> Path:
    """The folder of the benchmark pairs; it is not in the repository. Without it, tests are skipped, but not in CI."""
    if not PAIRS.exists() and not os.environ.get("CI"):
        pytest.skip(f"no benchmark pairs in {PAIRS}")
    return PAIRS
