"""PSNR on the standard sets, through the worker's own engine.

    python -m benchmarks.quality [FOLDER]

FOLDER holds one folder per set and factor (Set5_x4, …) with NAME_HR.png and NAME_LR.png. Protocol: Y
of BT.601 in limited range, `factor` pixels cropped from each side, peak 255.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.report import emit
from worker.engine.compute import choose
from worker.engine.device import choose as choose_device
from worker.engine.device_thread import DeviceThread
from worker.engine.engine import Engine
from worker.model import open_folder

PAIRS = Path("../shared/benchmarks")
MODEL = Path(__file__).parent.parent / "models" / "faithful" / "1"
Pixels = npt.NDArray[np.uint8]


def luma(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Y of BT.601, limited range [16, 235], from (height, width, 3) RGB, as MATLAB's rgb2ycbcr."""
    weights = np.array([65.481, 128.553, 24.966])
    return np.asarray(pixels.astype(np.float64) @ weights / 255 + 16)


def psnr(image: Pixels, reference: Pixels, crop: int) -> float:
    """Peak signal-to-noise ratio of the luma in dB, without `crop` pixels at each side."""
    difference = (luma(image) - luma(reference))[crop:-crop, crop:-crop]
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def measure(engine: Engine, lr: Path, factor: int) -> tuple[float, float]:
    """PSNR of the network and of bicubic interpolation for one pair."""
    small = Image.open(lr).convert("RGB")
    reference = np.asarray(Image.open(lr.with_name(lr.name.replace("_LR", "_HR"))).convert("RGB"))
    bicubic = small.resize((small.width * factor, small.height * factor), Image.Resampling.BICUBIC)
    enlarged = engine.upscale(np.asarray(small), factor)
    return psnr(enlarged, reference, factor), psnr(np.asarray(bicubic), reference, factor)


def main() -> int:
    """One JSON line per set; without pairs it says so, and in CI that is an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=PAIRS, help=f"benchmark pairs (default: {PAIRS})")
    folder: Path = parser.parse_args().folder
    sets = sorted(path for path in folder.glob("*_x[248]") if path.is_dir())
    if not sets:
        print(f"quality: no sets like Set5_x4 in {folder}; give the folder that has them.", file=sys.stderr)
        return int("CI" in os.environ)
    model = open_folder(MODEL)
    with DeviceThread() as thread:
        engine = Engine(model.manifest, choose(model, choose_device("cpu")), thread)
        for path in sets:
            name, factor = path.name.rsplit("_x", 1)
            values = [measure(engine, lr, int(factor)) for lr in sorted(path.glob("*_LR.png"))]
            ours, bicubic = np.mean(values, axis=0)
            emit(f"quality.{name}.x{factor}", ours, "dB", "bicubic", bicubic)
    return 0


if __name__ == "__main__":
    sys.exit(main())
