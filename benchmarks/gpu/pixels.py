"""Golden images, and tiled against untiled, of the bundled models on the device, in float16 and float32.

python -m benchmarks.gpu.pixels --device cuda
"""

import argparse
import sys
from typing import Any

from benchmarks.gpu import part
from benchmarks.gpu.part import Checks
from benchmarks.gpu.right_pixels import LEAST_DB, MOST_DB, levels, pixels, psnr_of
from benchmarks.pipeline import photo
from benchmarks.report import emit
from upres.models import bundled
from upres.worker import golden
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.imaging import images
from upres.worker.model import Model, open_folder

FACTOR = 4


def check_golden(checks: Checks, name: str, model: Model, engine: Engine) -> None:
    """Print the PSNR of each golden image, as a worker checks it when it loads a model."""
    for one in model.manifest.golden:
        found = min(golden.measure_psnr(model, engine, one, images.decode), MOST_DB)
        emit(f"{name}.golden_x{one.factor}", found, "dB", "least", one.least_psnr_db)
        text = f"{name}: golden image at factor {one.factor} has {found:.1f} dB; {one.least_psnr_db:g} are required"
        checks.expect(found >= one.least_psnr_db, text)


def check_tiles(checks: Checks, name: str, engines: tuple[Engine, Engine], side: int) -> Any:
    """Print by how many grey levels an image made in tiles differs from the same in one window; return the latter."""
    image = pixels(photo(side, side))
    tiled, whole = (engine.upscale(image, FACTOR) for engine in engines)
    found = levels(tiled, whole)
    emit(f"{name}.tiled", found, "grey levels", "most", 1)
    checks.expect(found <= 1, f"{name}: tiled and untiled differ by {found} grey levels; 1 is allowed")
    return whole


def check_model(checks: Checks, model: Model, wanted: argparse.Namespace) -> None:
    """Check one model in each precision, and each against the last one, float32."""
    made = {}
    for precision in wanted.precisions:
        name = f"pixels.{model.manifest.name}.{precision}"
        with checks.of(name), DeviceThread() as thread:
            compute = TorchCompute(model, wanted.device, precision)
            tiled, whole = (Engine(model.manifest, compute, thread, tile) for tile in (wanted.tile, wanted.side))
            tiled.warm_up()
            check_golden(checks, name, model, tiled)
            made[precision] = check_tiles(checks, name, (tiled, whole), wanted.side)
    for precision, one in made.items():
        if precision != "float32" and "float32" in made:
            name = f"pixels.{model.manifest.name}.{precision}.against_float32"
            emit(name, psnr_of(checks, name, one, made["float32"]), "dB", "least", LEAST_DB)
            emit(f"{name}.levels", levels(one, made["float32"]), "grey levels", "one level", 1)


def main() -> int:
    """Print one JSON line per figure."""
    parser = part.parser("pixels", __doc__)
    parser.add_argument("--side", type=int, default=1024, help="side of the image that is made in tiles, in pixels")
    parser.add_argument("--tile", type=int, default=640, help="largest side of a tile")
    parser.add_argument("--precisions", nargs="+", default=["float16", "float32"])
    parser.add_argument("--models", nargs="+", default=["faithful", "photo"])
    wanted, checks = parser.parse_args(), Checks()
    for name in wanted.models:
        folder = list(bundled.versions(name).values())[-1]
        check_model(checks, open_folder(folder), wanted)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
