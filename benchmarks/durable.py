"""What the durability of results costs `upres FOLDER`, compared with the same command without fsync.

    python -m benchmarks.durable [--images 2000] [--runs 3]

Both enlarge the same small photos, in turn; the fastest run of each counts. Without fsync means that the process
replaces os.fsync and os.fdatasync by functions that do nothing, and that SQLite's ledger runs with synchronous=OFF.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.batch import photos
from benchmarks.report import emit
from upres.embedded.stack import Local

SIDE = 32
BUILD = Path(__file__).parent.parent / "build"
COMMAND = "from upres.cli import main; main()"
WITHOUT = f"""
import os, sqlite3
os.fsync = os.fdatasync = lambda descriptor: None
connect = sqlite3.connect
def volatile(*given, **named):
    connection = connect(*given, **named)
    connection.execute("PRAGMA synchronous=OFF")
    return connection
sqlite3.connect = volatile
{COMMAND}
"""


def seconds(code: str, local: Local, source: Path, out: Path) -> float:
    """Seconds of one run of the command, as `code`, into a new folder."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, str(source), "--factor", "2", "--out", str(out)],
        env={**os.environ, "UPRES_URL": local.url},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    taken = time.perf_counter() - begin
    assert len(list(out.glob("*.png"))) == len(list(source.iterdir()))
    return taken


def main() -> int:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.durable", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="number of photos; default: 2000")
    parser.add_argument("--runs", type=int, default=3, help="runs of each; default: 3")
    options = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    with Local() as local, tempfile.TemporaryDirectory(dir=BUILD) as folder:  # /tmp may be in memory
        source = Path(folder) / "in"
        source.mkdir()
        for number, photo in enumerate(photos(3, options.images, SIDE)):
            (source / f"{number:04}.png").write_bytes(photo)
        seconds(COMMAND, local, source, Path(folder) / "warm-up")
        ours, peer = [], []
        for run in range(options.runs):
            peer.append(seconds(WITHOUT, local, source, Path(folder) / f"volatile-{run}"))
            ours.append(seconds(COMMAND, local, source, Path(folder) / f"durable-{run}"))
    emit(f"upres FOLDER, {options.images} photos of {SIDE}×{SIDE}, ×2", min(ours), "s", "without fsync", min(peer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
