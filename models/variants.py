"""Makes smaller and faster versions of a model: float16 weights, or int8 networks; measures them on photos.

int8 is static quantisation (Jacob et al. 2018, arXiv 1712.05877) of the ONNX graph, per channel, calibrated on photos.
The first and the last convolution keep float32: errors in them would be the most visible.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.torch import load_file, save

from upres.core.errors import ModelError
from upres.core.manifest import GRAPH_INPUT, Network
from upres.models import export, folder
from upres.models.measure import seconds, start_engine
from upres.worker import golden
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.loading import load
from upres.worker.golden import psnr
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model, open_folder

Pixels = npt.NDArray[np.uint8]
MAX_PHOTOS = 24
"""Number of photos used for calibration and measuring."""
SIDE = 384
"""Largest side in pixels of the squares cut from photos, before downscaling."""
SMALLEST = 64
"""Photos with a shorter side, in pixels, are left out: they are all border."""
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def make(model: Model, precision: str, photos: Path, to: Path) -> Model:
    """Make a variant in a folder; its loss, size and speed are written to its manifest. Raises ModelError."""
    pictures = list(read_photos(photos))
    to.mkdir(parents=True, exist_ok=True)
    written = [
        {"float16": _half, "int8": _int8}[precision](model, one, to, pictures) for one in model.manifest.networks
    ]
    variant = folder.derive(model, to, f"{model.manifest.version}-{precision}", written)
    measured = [
        {**fields, "quality": quality}
        for fields, quality in zip(written, compare(model, variant, pictures), strict=True)
    ]
    made = folder.derive(open_folder(to), to, variant.manifest.version, measured)
    with DeviceThread() as thread, Decoders(1, golden.MAX_PIXELS) as decoders:
        golden.check(made, start_engine(made, thread), decoders.decode)  # the same check as in workers
    return made


def compare(model: Model, variant: Model, pictures: Sequence[Pixels]) -> list[dict[str, float]]:
    """For each network: PSNR on downscaled photos, its loss in dB, size in megabytes, and speed."""
    found = []
    with DeviceThread() as thread:
        before, after = start_engine(model, thread), start_engine(variant, thread)
        for network in variant.manifest.networks:
            factor = network.factor
            pairs = [(small(one, factor), one) for one in pictures]
            kept, now = (
                float(np.mean([psnr(engine.upscale(lr, factor), hr) for lr, hr in pairs])) for engine in (before, after)
            )
            megapixels = (256 * factor) ** 2 / 1e6
            found.append(
                {
                    "photos_psnr_db": round(now, 3),
                    "psnr_loss_db": round(max(0.0, kept - now), 3),
                    "megabytes": round(variant.files[network.file].stat().st_size / 1e6, 2),
                    "seconds_per_megapixel": round(seconds(after, factor) / megapixels, 4),
                    "times_as_fast": round(seconds(before, factor) / seconds(after, factor), 2),
                }
            )
    return found


def read_photos(where: Path) -> Iterator[Pixels]:
    """Yield central squares of at most MAX_PHOTOS photos, sides a multiple of 8; photos below SMALLEST are left out.

    Raises ModelError when there is no photo, or a file cannot be read as one.
    """
    count = 0
    for file in sorted(path for path in where.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES):
        square = _square(file)
        if square is not None:
            count += 1
            yield square
        if count == MAX_PHOTOS:
            return
    if not count:
        raise ModelError(
            f"{where}: there are no photos (JPEG, PNG, WebP) to measure with, of {SMALLEST}×{SMALLEST} pixels or more."
        )


def _square(file: Path) -> Pixels | None:
    """Read the central square of a photo; None when it is too small. Raises ModelError when it is no photo."""
    try:
        with Image.open(file) as image:
            if min(image.size) < SMALLEST:
                return None
            side = min(SIDE, *image.size) // 8 * 8
            left, top = ((length - side) // 2 for length in image.size)
            return np.asarray(image.convert("RGB").crop((left, top, left + side, top + side)))
    except Exception as error:  # Pillow raises errors of many types for damaged files
        raise ModelError(f"{file} is no photo that can be read ({type(error).__name__}); take it out.") from error


def small(pixels: Pixels, factor: int) -> Pixels:
    """Downscale a photo by `factor` per side, bicubic; for factor 1 add noise to it."""
    if factor == 1:
        return folder.noisy(pixels)
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((width // factor, height // factor), Image.Resampling.BICUBIC))


def _half(model: Model, network: Network, to: Path, pictures: Sequence[Pixels]) -> dict[str, Any]:
    if network.architecture == "graph":
        raise ModelError("Half precision is for weights; an ONNX graph is computed in what the worker is fastest in.")
    tensors = load_file(model.files[network.file])
    half = save({name: one.half() if one.ndim > 1 else one for name, one in tensors.items()})
    (to / network.file).write_bytes(half)
    return network.model_dump(exclude={"sha256", "quality", "graph"})


def _int8(model: Model, network: Network, to: Path, pictures: Sequence[Pixels]) -> dict[str, Any]:
    if model.base:
        raise ModelError(f"{model} is mixed by each job; int8 networks cannot be: make a mix first, upres models mix.")
    name = f"{model.manifest.name}-x{network.factor}-int8.onnx"
    whole = to / f"{name}.float32"
    export.export_network(export.Portable(load(network, model)).eval(), network.factor, "onnx", whole)
    quantise(whole, to / name, [small(one, network.factor)[None] for one in pictures])
    whole.unlink()
    kept = network.model_dump(include={"factor", "receptive_radius", "halo", "alignment"})
    return {"architecture": "graph", "file": name, "precisions": ("int8",), **kept}


def quantise(graph: Path, to: Path, windows: Sequence[Pixels]) -> None:
    """Quantise the convolutions of an ONNX graph to int8, with ranges calibrated on `windows`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Windows(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(windows)

        def get_next(self) -> dict[str, Pixels] | None:
            window = next(self._left, None)
            return None if window is None else {GRAPH_INPUT: window}

    convolutions = [node.name for node in onnx.load(graph).graph.node if node.op_type == "Conv"]
    with export.quiet():
        quantize_static(
            graph,
            to,
            Windows(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
        )
