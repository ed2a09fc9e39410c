"""A worker in an environment without torch: same tiles, same events, same pixels within one grey level."""

import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from tests.support.images import encoded
from tests.support.paths import ROOT, SAMPLES
from tests.support.pushing import Pushed
from tests.support.workers import worker
from upres.client import Client
from upres.core.schema import Failed, Progress
from upres.embedded.stack import Local
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model

PYTHON = ROOT / ".venv-onnx/bin/python"
pytestmark = [pytest.mark.portable, pytest.mark.without_worker]


def test_the_environment_has_neither_torch_nor_openvino() -> None:
    done = subprocess.run([PYTHON, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in done.stderr
    done = subprocess.run([PYTHON, "-c", "import openvino"], capture_output=True, text=True)
    assert "No module named 'openvino'" in done.stderr


def test_a_worker_without_torch_sends_the_same_events_and_pixels(
    local: Local, redis: Redis, model: Model, tmp_path: Path
) -> None:
    """The bundled model includes ONNX graphs; a job with a version that has only weights fails with "needs torch"."""
    pushed = Pushed(local.store, "weights", tmp_path)
    pushed.push("1", networks=[{**one, "graph": None} for one in pushed.fields["networks"]])
    photo = SAMPLES / "coffee.png"
    received: list[Progress] = []
    with Client(local.url) as client:
        with worker(local):
            client.upscale(photo, 4, on_event=lambda event: keep(event, received))
        environment = {**os.environ, **local.environment, "UPRES_CACHE_DIR": str(tmp_path / "cache")}
        with subprocess.Popen([PYTHON, "-m", "upres.worker"], env=environment) as other_worker:
            try:
                theirs: list[Progress] = []
                other = another(photo)  # an identical image would get the stored result of the first job
                found = pixels(client.upscale(other, 4, on_event=lambda event: keep(event, theirs)).download())
                assert np.abs(found.astype(int) - by_torch(model, other)).max() <= 1
                assert steps(theirs) == steps(received)
                end = list(client.events(client.submit(photo, 2, model="weights").job_id))[-1]
                assert isinstance(end, Failed)
                assert "needs torch" in end.message
            finally:
                other_worker.terminate()
                other_worker.wait(60)


def steps(received: list[Progress]) -> list[tuple[str, int, int]]:
    return [(event.stage, event.tiles_done, event.tiles_total) for event in received]


def another(photo: Path) -> bytes:
    with Image.open(photo) as image:
        changed = image.convert("RGB")
    changed.putpixel((0, 0), (1, 2, 3))
    return encoded(changed, "PNG")


def by_torch(model: Model, photo: bytes) -> np.ndarray:
    """Enlarge the photo by torch in float32, the precision of the ONNX graph."""
    with DeviceThread() as thread:
        return Engine(model.manifest, TorchCompute(model, "cpu", "float32"), thread).upscale(pixels(photo), 4)


def keep(event: object, received: list[Progress]) -> None:
    if isinstance(event, Progress):
        received.append(event)


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
