"""Image files of unusual kinds through the complete system."""

import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tests.support.encoders import jpegxl_encode
from tests.support.heic_files import heic
from tests.support.images import encoded, opened, psnr
from upres.client import Client
from upres.client.batch import Callbacks
from upres.core.schema import Depth, Event, Progress
from upres.embedded.stack import Local
from upres.models.inprocess import InProcess


def test_what_is_wrong_with_a_file_is_told_while_it_is_enlarged(client: Client, photo: Image.Image) -> None:
    upscaled = client.upscale(encoded(photo, "JPEG")[:-2], 2)
    said = [
        (one.stage, one.notice) for one in client.events(upscaled.job_id) if isinstance(one, Progress) and one.notice
    ]
    assert [stage for stage, _ in said] == ["decode"]
    assert "end of the JPEG file is missing" in (said[0][1] or "")


@pytest.mark.parametrize("kind", ["HEIC", "JPEG XL"])
def test_kinds_that_pillow_does_not_read_are_enlarged(client: Client, photo: Image.Image, kind: str) -> None:
    pixels = np.asarray(photo)
    upscaled = client.upscale(heic(pixels) if kind == "HEIC" else jpegxl_encode(pixels, lossless=True), 2)
    plain = opened(client.upscale(encoded(photo, "PNG"), 2).download())
    assert psnr(opened(upscaled.download()), plain) > 30


def test_local_mode_tells_it_too(tmp_path: Path, photo: Image.Image) -> None:
    (tmp_path / "cut.jpg").write_bytes(encoded(photo, "JPEG")[:-2])
    events: list[Event] = []
    InProcess(2, {"output_format": "auto"}).enlarge(
        str(tmp_path / "cut.jpg"), Callbacks(events.append, lambda *_: None)
    )
    first = events[0]
    assert isinstance(first, Progress)
    assert (first.stage, "end of the JPEG file is missing" in (first.notice or "")) == ("decode", True)


def test_the_command_tells_it_on_stderr(local: Local, tmp_path: Path, photo: Image.Image) -> None:
    (tmp_path / "cut.jpg").write_bytes(encoded(photo, "JPEG")[:-2])
    command = [str(Path(sys.executable).parent / "upres"), str(tmp_path / "cut.jpg"), "--factor", "2"]
    environment = {**os.environ, "UPRES_URL": local.url}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "cut_x2.jpg\n")
    assert "cut.jpg: The end of the JPEG file is missing" in done.stderr


@pytest.mark.parametrize("depth", [8, 16])
def test_local_mode_makes_the_wanted_depth(tmp_path: Path, photo: Image.Image, depth: Depth) -> None:
    ramp = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21)
    for name, image, own in (("photo", photo, 8), ("ramp", ramp, 16)):
        (tmp_path / f"{name}.png").write_bytes(encoded(image, "PNG"))
        backend = InProcess(2, {"output_depth": depth})
        made = backend.enlarge(str(tmp_path / f"{name}.png"), Callbacks(lambda event: None, lambda *_: None))
        made.save(tmp_path / "result.png", lambda path: True)
        assert made.result.depth == depth
        assert imagecodecs.png_decode((tmp_path / "result.png").read_bytes()).dtype == f"uint{depth}", own
