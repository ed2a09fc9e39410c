"""`python -m benchmarks`: every benchmark, one after the other."""

import subprocess
import sys

BENCHMARKS = (
    "quality",
    "entry",
    "codecs",
    "forward",
    "pipeline",
    "service",
    "gateway",
    "batch",
    "models",
    "observing",
    "scaling",
)


def main() -> int:
    """Run each in a process of its own; the highest exit code."""
    return max(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode for name in BENCHMARKS)


if __name__ == "__main__":
    sys.exit(main())
