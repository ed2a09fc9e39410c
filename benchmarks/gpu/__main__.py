"""`make gpu`, `python -m benchmarks.gpu`: run all parts on this machine's GPU, in at most ten minutes.

It prints one line for each part, and writes figures.jsonl and log.txt, and its section of benchmarks/RESULTS.md. The
exit code is 0 when all parts passed, else 1; 69 when there is no GPU that upres can use.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu import section
from benchmarks.gpu.parts import PARTS, SECONDS, Part
from benchmarks.gpu.runner import NOT_RUN, ROOT, TIME_RAN_OUT, UNUSABLE, Ran, command, environment, run

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
FOLDER = ROOT / "data" / "gpu"
LEAST_SECONDS = 3
"""A part is not begun with less time than this."""

Run = Callable[[Part, float], Ran]
"""Runs a part for at most so many seconds."""


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, metavar="PART", help=f"only these: {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"limit for all parts (default: {SECONDS})")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="for figures.jsonl and log.txt")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="Markdown file whose section is replaced (default: benchmarks/RESULTS.md after a whole run on a GPU)",
    )
    parser.add_argument("--imitate", action="store_true", help="try the script without a GPU, on the CPU")
    parser.add_argument("--quick", action="store_true", help="with --imitate: as little work as possible")
    wanted = parser.parse_args()
    if wanted.quick and not wanted.imitate:
        parser.error("--quick is for --imitate: on a GPU all figures are measured")
    return wanted


def parts_in_time(parts: Sequence[Part], seconds: float, run_one: Run) -> Iterator[Ran]:
    """Run parts within `seconds`, each with its share and what the earlier ones have left; yield each outcome.

    The first of PARTS finds out whether there is a usable GPU at all; without one the others are not run. Neither are
    they after Ctrl-C or SIGTERM.
    """
    begin, planned, why = time.monotonic(), 0.0, ""
    for part in parts:
        planned += part.seconds * seconds / sum(one.seconds for one in parts)
        left = planned - (time.monotonic() - begin)
        if why or left < min(LEAST_SECONDS, planned):
            yield Ran(part.name, f"{NOT_RUN}: {why or TIME_RAN_OUT}")
            continue
        try:
            ran = run_one(part, left)
        except KeyboardInterrupt:
            why = "interrupted"
            yield Ran(part.name, f"failed: {why}")
            continue
        if ran.unusable:
            why = "no usable GPU"
        yield ran


def all_parts(wanted: argparse.Namespace, log: Path, variables: Mapping[str, str]) -> list[Ran]:
    """Run the wanted parts; print a line for each, and append its figures to figures.jsonl at once."""
    device = "cpu" if wanted.imitate else "cuda"
    # Without the first part nobody knows what the figures are of, nor whether there is a GPU.
    parts = [part for part in PARTS if part is PARTS[0] or part.name in (wanted.parts or [part.name])]

    def run_one(part: Part, seconds: float) -> Ran:
        print(f"{part.name:9} {part.about} …", flush=True)
        return run(part.name, command(part.module, part.arguments(device, wanted.quick)), seconds, log, variables)

    done: list[Ran] = []
    for ran in parts_in_time(parts, wanted.seconds, run_one):
        done.append(ran)
        _show(ran)
        with (wanted.out / "figures.jsonl").open("a") as file:
            for line in (*ran.lines, {"outcome": ran.outcome, "seconds": round(ran.seconds, 1)}):
                told = {"part": ran.name, "device": _device(done, wanted.imitate), "imitation": wanted.imitate}
                file.write(json.dumps({**line, **told}) + "\n")
    return done


def _show(ran: Ran) -> None:
    print(f"{ran.name:9} {ran.outcome}, {ran.seconds:.0f} s", flush=True)
    for line in ran.lines:
        for kind in ("wrong", "missing", "advice"):
            if kind in line:
                print(f"          {kind}: {line[kind]}", flush=True)


def _device(done: Sequence[Ran], imitated: bool) -> str:
    """Return the name of the GPU, as the first part has found it."""
    facts = {line["fact"]: line["value"] for ran in done for line in ran.lines if "fact" in line}
    return f"none: imitated on {facts.get('processor', 'a CPU')}" if imitated else facts.get("GPU", "unknown")


def _write_section(wanted: argparse.Namespace, done: Sequence[Ran]) -> None:
    whole = not (wanted.imitate or wanted.parts or done[0].unusable)
    file = wanted.results or (RESULTS if whole else None)
    if file is None:
        return
    day = datetime.now(UTC).date().isoformat()
    try:
        section.put(file, section.text(done, _device(done, wanted.imitate), day, wanted.imitate))
        print(f"section of {file}: written")
    except OSError as error:  # the figures are in figures.jsonl all the same
        print(f"section of {file}: not written: {error}", file=sys.stderr)


def main() -> int:
    """Run the parts and return the exit code."""
    wanted = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is measured so far is written
    wanted.out.mkdir(parents=True, exist_ok=True)
    for name in ("figures.jsonl", "log.txt"):
        (wanted.out / name).unlink(missing_ok=True)
    if wanted.imitate:
        print("An imitation on the CPU: it tries this script, and measures no GPU.")
    with tempfile.TemporaryDirectory(prefix="upres-gpu-", ignore_cleanup_errors=True) as scratch:
        done = all_parts(wanted, wanted.out / "log.txt", environment(os.environ, Path(scratch)))
    _write_section(wanted, done)
    print(f"figures and log: {wanted.out}")
    return 0 if all(ran.passed for ran in done) else UNUSABLE if done[0].unusable else 1


if __name__ == "__main__":
    sys.exit(main())
