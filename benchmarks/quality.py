"""PSNR on the standard sets, computed by the worker's own engine.

    python -m benchmarks.quality [FOLDER]

FOLDER holds one folder per set and factor (Set5_x4, …) with NAME_HR.png and NAME_LR.png. Protocol: Y
of BT.601 in limited range, `factor` pixels cropped from each side, peak 255. Measured are `faithful` with one
orientation and with all eight (`ensemble`), and `photo` at its default strength. Of the sets for factor 4, factor 3 is
measured too: its small images are made from the large ones by bicubic interpolation.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.report import emit
from upres.core.sizes import WantedSize, plan_size
from upres.core.tiling import ORIENTATIONS
from upres.models import bundled, pairs
from upres.models.pairs import Pixels
from upres.worker.engine.device import choose as choose_device
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.runtimes import choose
from upres.worker.imaging.downscale import downscaled
from upres.worker.model import open_folder

PAIRS = Path("../shared/benchmarks")


def main() -> int:
    """Print one JSON line per set. Without sets: prints an error, and returns 1 in CI, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=PAIRS, help=f"folder with sets (default: {PAIRS})")
    folder: Path = parser.parse_args().folder
    sets = sorted(path for path in folder.glob("*_x[248]") if path.is_dir())
    if not sets:
        print(f"quality: no sets like Set5_x4 in {folder}; give the folder that has them.", file=sys.stderr)
        return int("CI" in os.environ)
    with DeviceThread() as one, DeviceThread() as other:
        engine, photo = _engine("faithful", one), _engine("photo", other)
        for path in sets:
            name, factor = path.name.rsplit("_x", 1)
            ours, bicubic = pairs.mean(engine.upscale, path, int(factor))
            emit(f"quality.{name}.x{factor}", ours, "dB", "bicubic", bicubic)
            averaged, _ = pairs.mean(partial(engine.upscale, orientations=ORIENTATIONS), path, int(factor))
            emit(f"quality.{name}.x{factor}.ensemble", averaged, "dB", "one orientation", ours)
            sharp, _ = pairs.mean(photo.upscale, path, int(factor))
            emit(f"quality.{name}.x{factor}.photo", sharp, "dB", "faithful", ours)
            if factor == "4":
                between, bicubic = pairs.mean_between(partial(_made_smaller, engine), path)
                emit(f"quality.{name}.x{pairs.BETWEEN}", between, "dB", "bicubic", bicubic)
    return 0


def _engine(name: str, thread: DeviceThread) -> Engine:
    """The engine of the latest version of a bundled model, on the CPU."""
    model = open_folder(list(bundled.versions(name).values())[-1])
    return Engine(model.manifest, choose(model, choose_device("cpu")), thread)


def _made_smaller(engine: Engine, small: Pixels, factor: int) -> Pixels:
    """Enlarge an image by a factor that the model does not have, as a job does."""
    planned = plan_size((small.shape[1], small.shape[0]), WantedSize(factor), engine.manifest.factors)
    bands = engine.bands(small, planned.factor)
    return np.concatenate(list(downscaled(bands, planned.made, planned.size))).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
