"""Measures model versions on this machine: digests, golden images, seconds."""

import tempfile
import time
from pathlib import Path

import numpy as np

from upres.core import registry
from upres.core.errors import ModelError, SettingsError
from upres.core.registry import CANARY, STABLE
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.worker import golden
from upres.worker.engine import runtimes
from upres.worker.engine.device import choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model, pull

SIDE = 256
RUNS = 5


def verify(store: Store, name: str, version: str) -> str:
    """Check all digests and golden images of a version; returns a summary. Raises ModelError or ModelRefused."""
    # With an empty cache: files in the usual cache say nothing about those in the store.
    with tempfile.TemporaryDirectory() as nowhere, DeviceThread() as thread:
        model = pull(store, name, version, Path(nowhere))
        with Decoders(1, golden.MAX_PIXELS) as decoders:
            golden.check(model, start_engine(model, thread), decoders.decode)
    return f"{len(model.files)} files and {len(model.manifest.golden)} golden images are correct"


def compare(store: Store, name: str) -> list[tuple[str, ...]]:
    """Rows for stable and canary: label, version, PSNR, milliseconds, size. Raises ModelError without a canary."""
    labels = registry.labels(store, name).labels
    if CANARY not in labels:
        raise ModelError(f"Model {name!r} has no canary; give it one: upres models label {name} canary=VERSION")
    models = {label: _pull(store, name, labels[label]) for label in (STABLE, CANARY)}
    with DeviceThread() as thread, Decoders(1, golden.MAX_PIXELS) as decoders:
        engines = {label: start_engine(model, thread) for label, model in models.items()}
        return [_row(label, model, models[STABLE], engines[label], decoders.decode) for label, model in models.items()]


def seconds(engine: Engine, factor: int, side: int = SIDE, runs: int = RUNS) -> float:
    """The fastest of `runs` runs, in seconds, on a square noise image of `side` pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    took = []
    for _ in range(runs):
        begin = time.perf_counter()
        engine.upscale(pixels, factor)
        took.append(time.perf_counter() - begin)
    return min(took)


def download(store: Store, name: str, version: str | None) -> Model:
    """Download a version by its name or label; None: stable. Raises ModelNotFound or ModelError."""
    labels = registry.labels(store, name).labels
    return _pull(store, name, labels.get(version or STABLE, version or STABLE))


def _row(label: str, model: Model, stable: Model, engine: Engine, decode: golden.Decode) -> tuple[str, ...]:
    """One row of `compare`. The PSNR is against the golden images of the stable version, which users get now."""
    factors = [one for one in stable.manifest.golden if model.manifest.chain(one.factor)]
    found = [f"x{one.factor} {golden.measure_psnr(stable, engine, one, decode):.2f} dB" for one in factors]
    factor = max(network.factor for network in model.manifest.networks)
    took = f"x{factor} {seconds(engine, factor) * 1000:.0f} ms"
    return label, model.manifest.version, ", ".join(found) or "none", took, f"{model.bytes / 1e6:.1f} MB"


def start_engine(model: Model, thread: DeviceThread) -> Engine:
    """An engine for the model on the best device of this machine, warmed up."""
    engine = Engine(model.manifest, runtimes.choose(model, choose("auto"), _cache()), thread)
    engine.warm_up()
    return engine


def _pull(store: Store, name: str, version: str) -> Model:
    cache = _cache()
    if cache is None:
        raise SettingsError("UPRES_CACHE_DIR: this user has no home folder; set it to a folder for model files.")
    return pull(store, name, version, cache)


def _cache() -> Path | None:
    return Settings.from_environment().cache_folder
