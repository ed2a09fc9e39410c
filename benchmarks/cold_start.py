"""Cold start of the function on Lambda: a new process with the bundle's files only, until its first accepted request.

    python -m benchmarks.cold_start

The peer has the same files as pip installs them, without bytecode: Lambda's file system is read-only, so that each cold
start would compile them anew. Whole processes are timed, alternately. The packages are those of this environment, for
this machine and this Python, and not those for Lambda.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from benchmarks.entry import ENTRY
from benchmarks.report import emit
from infra.aws import bundle, slim
from upres.core import api_keys
from upres.core.queue import connect
from upres.embedded.stack import Local

IMAGE = ENTRY.replace('{"image_url": "https://example.org/photo.png"}', '{"image_base64": "aW1hZ2U="}')
"""The same with the image in the request, so that boto3 is imported and puts it into the store."""


def installed(folder: Path) -> None:
    """Copy the packages that function/requirements.txt needs from this environment to a folder, without bytecode."""
    names = [re.split(r"[~<>=;\[ ]", line)[0] for line in bundle.REQUIREMENTS.read_text().split("\n") if line]
    for name in _with_dependencies(names):
        for file in metadata.files(name) or ():
            source, target = Path(str(file.locate())), folder / file
            if ".." not in file.parts and "__pycache__" not in file.parts and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)


def _with_dependencies(names: list[str]) -> set[str]:
    found, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        needed = (one for one in metadata.requires(name) or () if "extra ==" not in one)
        waiting += [wanted for one in needed if (wanted := re.split(r"[~<>=!;\[( ]", one)[0]) and _is_installed(wanted)]
    return found


def _is_installed(name: str) -> bool:
    """Whether a dependency is installed; some are for other systems or versions of Python."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def bundled(folder: Path, slimmed: bool = True) -> None:
    """Fill a folder as infra/aws/bundle.py does; not `slimmed`: as it did without infra/aws/slim.py."""
    installed(folder)
    if slimmed:
        slim.remove_unused(folder)
    bundle.copy_sources(folder)
    if slimmed:
        slim.compile_with(sys.executable, folder)


def run(code: str, folder: Path, environment: dict[str, str]) -> str:
    """Run code in a new process that sees the files of a folder, and no other packages. Return what it prints."""
    alone = {**environment, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=folder, env=alone, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def seconds(code: str, folder: Path, environment: dict[str, str]) -> float:
    """Wall-clock seconds of such a process."""
    begin = time.perf_counter()
    run(code, folder, environment)
    return time.perf_counter() - begin


def main() -> int:
    """Print two JSON lines, for a request with the address of an image and for one with an image: medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="runs of each process (default: 11)")
    runs: int = parser.parse_args().runs
    with Local() as local, tempfile.TemporaryDirectory() as place:
        local.stop("worker")
        with connect(local.settings) as redis:
            _, key = api_keys.create(redis, "benchmark", requests_per_minute=1000)
        environment = {**os.environ, **local.environment, "UPRES_ACCESS": "keys", "KEY": key}
        slimmed, whole = Path(place, "slimmed"), Path(place, "whole")
        bundled(slimmed)
        bundled(whole, slimmed=False)
        for name, code in (("image_url", ENTRY), ("image_base64", IMAGE)):
            times = [[seconds(code, folder, environment) for folder in (slimmed, whole)] for _ in range(runs + 1)][1:]
            ours, peer = (statistics.median(column) * 1000 for column in zip(*times, strict=True))
            emit(f"cold_start.{name}", ours, "ms", "the same files without bytecode", peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
