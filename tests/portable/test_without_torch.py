"""A worker in an environment that has no torch at all: same tiles, same events, same pixels within a grey level."""

import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from client import Client
from core import registry, workers
from core.schema import Failed, Progress
from infra.local import Local
from models import export
from tests.conftest import ROOT, SAMPLES
from tests.pushing import Pushed
from tests.waiting import wait_until
from worker.engine.device_thread import DeviceThread
from worker.engine.engine import Engine
from worker.engine.torch_compute import TorchCompute
from worker.model import Model

PYTHON = ROOT / ".venv-onnx/bin/python"
pytestmark = [pytest.mark.portable, pytest.mark.usefixtures("held")]


def test_there_is_no_torch() -> None:
    done = subprocess.run([PYTHON, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in done.stderr
    done = subprocess.run([PYTHON, "-c", "import openvino"], capture_output=True, text=True)
    assert "No module named 'openvino'" in done.stderr


def test_it_serves_the_onnx_form(local: Local, redis: Redis, model: Model, tmp_path: Path) -> None:
    export.export(model, "onnx", tmp_path / "graphs")
    registry.push(local.store, tmp_path / "graphs")
    registry.set_label(local.store, "faithful", "onnx", "1-onnx")
    pushed = Pushed(local.store, "weights", tmp_path)
    pushed.push("1")
    environment = {**os.environ, **local.environment, "UPRES_CACHE_DIR": str(tmp_path / "cache")}
    environment["UPRES_MODEL"] = "graphs"
    photo = SAMPLES / "coffee.png"
    local.start("worker")
    with Client(local.url) as client:
        told: list[Progress] = []
        client.upscale(photo, 4, on_event=lambda event: keep(event, told))
    local.stop("worker")
    manifest = (tmp_path / "graphs" / "manifest.json").read_text().replace('"name": "faithful"', '"name": "graphs"')
    (tmp_path / "graphs" / "manifest.json").write_text(manifest)
    registry.push(local.store, tmp_path / "graphs")
    with subprocess.Popen([PYTHON, "-m", "worker"], env=environment, cwd=ROOT) as worker, Client(local.url) as client:
        try:
            wait_until(lambda: any("graphs 1-onnx" in one.models for one in workers.listing(redis)), 60)
            theirs: list[Progress] = []
            upscaled = client.upscale(photo, 4, model="graphs", on_event=lambda e: keep(e, theirs))
            found = pixels(upscaled.download())
            assert np.abs(found.astype(int) - by_torch(model, photo)).max() <= 1
            assert [(e.stage, e.tiles_done, e.tiles_total) for e in theirs] == [
                (e.stage, e.tiles_done, e.tiles_total) for e in told
            ]
            end = list(client.events(client.submit(photo, 2, model="weights").job_id))[-1]
            assert isinstance(end, Failed)
            assert "needs torch" in end.message
        finally:
            worker.terminate()
            worker.wait(60)
    registry.set_label(local.store, "faithful", "onnx", None)


def by_torch(model: Model, photo: Path) -> np.ndarray:
    """In float32, as the graph computes."""
    with DeviceThread() as thread:
        return Engine(model.manifest, TorchCompute(model, "cpu", "float32"), thread).upscale(
            pixels(photo.read_bytes()), 4
        )


def keep(event: object, told: list[Progress]) -> None:
    if isinstance(event, Progress):
        told.append(event)


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
