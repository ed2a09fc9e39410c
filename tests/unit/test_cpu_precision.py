"""The number format in which OpenVINO runs a network: the one that is faster on this processor."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upres.core.manifest import Network
from upres.worker.engine import cpu_precision
from upres.worker.engine.cpu_precision import BFLOAT16, FLOAT32, fastest, must_be_tried
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.model import Model


@pytest.mark.parametrize(
    ("flags", "tried"),
    [
        ("fpu avx512f avx512_bf16", True),
        ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", False),
        ("fpu avx2", False),
        ("", False),
    ],
)
def test_only_a_cpu_with_bfloat16_and_without_amx_is_in_doubt(tmp_path: Path, flags: str, tried: bool) -> None:
    cpuinfo = tmp_path / f"{abs(hash(flags))}"
    cpuinfo.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : none\n")
    assert must_be_tried(cpuinfo) is tried
    assert must_be_tried(tmp_path / "there is no such file") is False


class Timed:
    """Compiles networks that take so many seconds of a pretended processor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bfloat16: float, float32: float) -> None:
        self.now, self.compiled = 0.0, 0
        self.seconds = {BFLOAT16: bfloat16, FLOAT32: float32}
        monkeypatch.setattr(time, "process_time", lambda: self.now)

    def __call__(self, precision: str) -> Any:
        self.compiled += 1

        def run(window: np.ndarray) -> None:
            self.now += self.seconds[precision]

        return run


@pytest.fixture
def network(model: Model, monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setattr(cpu_precision, "must_be_tried", lambda: True)
    monkeypatch.setattr(cpu_precision, "_FOUND", {})
    return model.manifest.networks[0]


@pytest.mark.parametrize(
    ("bfloat16", "float32", "found"), [(1, 2, BFLOAT16), (2, 1, FLOAT32), (1, 1.1, FLOAT32), (1, 1.3, BFLOAT16)]
)
def test_bfloat16_is_taken_if_it_is_clearly_faster_which_is_tried_once_and_kept(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bfloat16: float, float32: float, found: str
) -> None:
    timed = Timed(monkeypatch, bfloat16, float32)
    assert [fastest(timed, network, tmp_path / "openvino") for _ in range(3)] == [found] * 3
    assert timed.compiled == 2
    [kept] = (tmp_path / "openvino").iterdir()
    kept.write_bytes(b"\xff damaged")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "openvino", None, tmp_path / "file"):
        cpu_precision._FOUND.clear()  # as in a new process
        assert fastest(timed, network, folder) == found
    assert timed.compiled == 8


@pytest.mark.parametrize("folder", ["openvino", "file", ""])
def test_a_process_tries_once_even_if_the_speeds_change_and_no_folder_keeps_what_was_found(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    """Else a model that is loaded again computes other pixels: the last bits of both formats differ."""
    (tmp_path / "file").touch()
    kept = tmp_path / folder if folder else None
    assert fastest(Timed(monkeypatch, 1, 2), network, kept) == BFLOAT16
    assert fastest(Timed(monkeypatch, 2, 1), network, kept) == BFLOAT16


def test_a_cpu_that_is_not_in_doubt_tries_nothing(monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    monkeypatch.setattr(cpu_precision, "must_be_tried", lambda: False)
    assert fastest(lambda precision: pytest.fail("it compiled"), network, None) == BFLOAT16


def test_the_pixels_of_both_formats_are_alike(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    image = [np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)]
    made = []
    for precision in (BFLOAT16, FLOAT32):
        monkeypatch.setattr(cpu_precision, "fastest", lambda *arguments, precision=precision: precision)
        made.append(OpenVinoCompute(model).start(4, image)().astype(int))
    assert np.abs(made[0] - made[1]).max() <= 8
    assert np.abs(made[0] - made[1]).mean() < 0.3
