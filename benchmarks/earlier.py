"""Jobs of this checkout against those of an earlier commit, on the whole system, in turns.

    python -m benchmarks.earlier COMMIT

Both run with the packages that are installed here, each with a Redis, a store, a function and a worker of its own.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from benchmarks.report import emit
from upres.client import Client
from upres.embedded.stack import Local

ROOT = Path(__file__).parent.parent
TURNS = 3
AT_ONCE = 4
SIZES = {"small": ((96, 64), 60), "large": ((600, 400), 4)}
"""Name → size of the images in pixels, and their number in a turn."""


def main() -> int:
    """Print one JSON line per size: the medians of jobs per second. Returns 1 if the commit cannot be checked out."""
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measured()))
        return 0
    [commit] = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder) / "earlier"
        if subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(earlier), commit], cwd=ROOT).returncode:
            return 1
        try:
            turns = [(run(earlier), run(ROOT)) for _ in range(TURNS)]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(earlier)], cwd=ROOT, check=True)
    for name in SIZES:
        before, now = (statistics.median(turn[which][name] for turn in turns) for which in (0, 1))
        emit(f"earlier.{name}_png", now, "jobs/s", f"commit {commit}", before)
    return 0


def run(checkout: Path) -> dict[str, float]:
    """Return jobs per second by size of the code in a checkout, in a process of its own.

    Its folder is an empty one: in a checkout, `python -m upres.worker` would find the package's folder `upres` there
    and, as it is incomplete, all other parts in the checkout that is installed.
    """
    subprocess.run([sys.executable, "-m", "infra.source_tree"], cwd=checkout, check=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout / ".venv" / "source")}
    command = [sys.executable, str(Path(__file__)), "--measure"]
    with tempfile.TemporaryDirectory() as empty:
        return dict(json.loads(subprocess.check_output(command, cwd=empty, env=environment)))


def measured() -> dict[str, float]:
    """Return jobs per second by size, of the code that this process imports."""
    found = {}
    with Local(environment={}) as local, Client(local.url) as client:
        for number, (name, (size, count)) in enumerate(SIZES.items()):
            files = [photo(size, seed) for seed in range(number, number + count)]
            client.upscale(photo(size, 255), 4)
            begin = time.perf_counter()
            with ThreadPoolExecutor(AT_ONCE) as threads:
                list(threads.map(lambda file: client.upscale(file, 4, output_format="png"), files))
            found[name] = count / (time.perf_counter() - begin)
    return found


def photo(size: tuple[int, int], seed: int) -> bytes:
    """A PNG file of 8 bits with a photo, which differs for each seed below 256."""
    with Image.open(ROOT / "samples" / "astronaut.png") as image:
        made = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    made.putpixel((0, 0), (seed, 0, 0))
    out = io.BytesIO()
    made.save(out, "PNG")
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
