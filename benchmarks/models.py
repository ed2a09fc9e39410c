"""Models: label switch under load, cold start, runtimes, and listing of 200 models.

python -m benchmarks.models
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from benchmarks.report import emit
from upres.client import Client
from upres.core import keys, registry_changes, registry_index
from upres.core.queue import connect
from upres.core.served_models import published
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.models import export
from upres.worker.engine.compute import Compute
from upres.worker.engine.device import choose
from upres.worker.engine.onnx_compute import OnnxCompute
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import open_folder

BUNDLED = Path(__file__).parent.parent / "models" / "faithful" / "1"
IN_FLIGHT, STEADY_SECONDS = 20, 15
MODELS, VERSIONS = 200, 5
COLD = """
import time, numpy as np
begin = time.perf_counter()
import torch
from pathlib import Path
from upres.worker.engine.networks import ByteNetwork
from upres.worker.engine.loading import load
from upres.worker.model import open_folder
model = open_folder(Path({folder!r}))
with torch.inference_mode():
    ByteNetwork(load(model.manifest.networks[0], model))(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
"""


def switch() -> None:
    """Print the 99th percentile of latencies while a label moves to another version; the peer is that before."""
    with Local() as local, tempfile.TemporaryDirectory() as temporary:
        latencies: list[tuple[float, float, str]] = []
        failed: list[Exception] = []
        stop = threading.Event()

        def follow(number: int) -> None:
            random = np.random.default_rng(number)
            with Client(local.url) as client:
                while not stop.is_set():
                    begin = time.monotonic()
                    try:
                        version = client.upscale(_picture(random), 2).result.model_version
                        latencies.append((begin, time.monotonic() - begin, version))
                    except Exception as error:
                        failed.append(error)

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for number in range(IN_FLIGHT):
                pool.submit(follow, number)
            time.sleep(3)
            steady = time.monotonic()
            time.sleep(STEADY_SECONDS)
            begin = time.monotonic()
            registry_changes.push(local.store, _another(Path(temporary)))
            registry_changes.relabel(local.store, "faithful", {"stable": "2"})
            with connect(local.settings) as redis:
                while (offer := published(redis, "faithful")) and offer.labels["stable"].version != "2":
                    time.sleep(0.05)
            took = time.monotonic() - begin
            time.sleep(2)
            stop.set()
        before = [one for at, one, _ in latencies if steady <= at < begin]
        during = [one for at, one, _ in latencies if at >= begin]
        emit("models.switch.p99", 1000 * _p99(during), "ms", "p99 before", 1000 * _p99(before))
        emit("models.switch.failed", len(failed), "jobs", "all jobs", len(latencies))
        emit("models.switch.takes", took, "s", "one second", 1)


def cold() -> None:
    """Print the seconds from the start of a worker with an empty cache until its first job ends; peer: torch alone."""
    with tempfile.TemporaryDirectory() as cache, Local(environment={"UPRES_CACHE_DIR": cache}) as local:
        local.stop("worker")
        for kept in Path(cache).rglob("*"):
            if kept.is_file():
                kept.unlink()
        with Client(local.url) as client:
            job = client.submit(_picture(np.random.default_rng(0)), 2)
            begin = time.perf_counter()
            worker = subprocess.Popen(
                [sys.executable, "-m", "upres.worker"],
                env={**os.environ, **local.environment},
                stderr=subprocess.DEVNULL,
            )
            list(client.events(job.job_id))
            took = time.perf_counter() - begin
            worker.terminate()
            worker.wait()
    code = COLD.format(folder=str(BUNDLED))
    peers = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        peers.append(time.perf_counter() - begin)
    emit("models.cold", took, "s", "import torch, load, one forward", min(peers))


def runtimes() -> None:
    """Print the time of a 256×256 image at factor 4 for each runtime; the peer is torch in float32."""
    model, device = open_folder(BUNDLED), choose("cpu")
    with tempfile.TemporaryDirectory() as temporary:
        export.export(model, "onnx", Path(temporary))
        graphs = open_folder(Path(temporary))
        ways: dict[str, Compute] = {
            "torch": TorchCompute(model, "cpu", "float32"),
            "onnxruntime": OnnxCompute(graphs, device),
            "openvino": OpenVinoCompute(model),
        }
        window = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
        seconds = {name: min(_timed(way, window) for _ in range(5)) for name, way in ways.items()}
    for name, took in seconds.items():
        emit(f"models.runtime.{name}", 1000 * took, "ms", "torch float32", 1000 * seconds["torch"])


def listing() -> None:
    """Print the time to rebuild the index of 200 models with five versions each, and of GET /v1/models."""
    fields = json.loads((BUNDLED / "manifest.json").read_text())
    with Local() as local:
        _fill(local.store, fields)
        begin = time.perf_counter()
        assert len(registry_index.reindex(local.store).models) == MODELS + 1
        emit("models.reindex", time.perf_counter() - begin, "s", "one second", 1)
        took = []
        for _ in range(5):
            begin = time.perf_counter()
            assert len(requests.get(f"{local.url}/v1/models", timeout=20).json()["models"]) == MODELS + 1
            took.append(time.perf_counter() - begin)
        emit("models.list.http", 1000 * min(took), "ms", "bound", 200)


def _fill(store: Store, fields: dict[str, object]) -> None:
    with ThreadPoolExecutor(16) as pool:
        for number in range(MODELS):
            name = f"model-{number}"
            pool.submit(store.put, keys.labels(name), b'{"labels": {"stable": "1"}}')
            for version in range(1, VERSIONS + 1):
                raw = json.dumps({**fields, "name": name, "version": str(version)}).encode()
                pool.submit(store.put, keys.model(name, str(version), "manifest.json"), raw)


def _picture(random: np.random.Generator) -> bytes:
    import io

    data = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(data, "PNG")
    return data.getvalue()


def _another(folder: Path) -> Path:
    """A copy of the bundled version with the name 2."""
    for file in BUNDLED.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    fields = json.loads((BUNDLED / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**fields, "version": "2"}))
    return folder


def _timed(way: Compute, window: "np.ndarray") -> float:
    begin = time.perf_counter()
    way.start(4, [window])()
    return time.perf_counter() - begin


def _p99(values: list[float]) -> float:
    return float(np.percentile(values, 99))


def main() -> int:
    """Print one JSON line per figure."""
    argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__).parse_args()
    switch()
    cold()
    runtimes()
    listing()
    return 0


if __name__ == "__main__":
    sys.exit(main())
