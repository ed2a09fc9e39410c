"""`python -m benchmarks`: runs all benchmarks, one after the other."""

import subprocess
import sys

BENCHMARKS = (
    "quality",
    "preference",
    "entry",
    "accepting",
    "cold_start",
    "codecs",
    "decoding",
    "forward",
    "pipeline",
    "service",
    "gateway",
    "batch",
    "durable",
    "models",
    "community",
    "observing",
    "waiting",
    "abuse",
    "scaling",
)


def main() -> int:
    """Run each benchmark in its own process; returns the highest exit code."""
    return max(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode for name in BENCHMARKS)


if __name__ == "__main__":
    sys.exit(main())
