"""Community networks in OpenVINO: converted where the pixels are those of torch, else run by torch."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import communities
from upres.core.manifest import Sides
from upres.models.folder import photo
from upres.worker.engine import runtimes, sides, trial_process, trials
from upres.worker.engine.compute import Compute
from upres.worker.engine.device import choose
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.engine.spandrel_network import _padded
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model, prune

CPU = choose("cpu")
pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.meshgrid", "ignore::torch.jit.TracerWarning", "ignore:Initializing zero"
)


@pytest.fixture(scope="module")
def span(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return communities.version(tmp_path_factory.mktemp("span"), communities.span)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenVINO be the faster one: the machine of a test may be busy."""
    is_ours = {True: 1.0, False: 2.0}
    monkeypatch.setattr(
        trial_process, "_seconds", lambda factor, batch, compute: is_ours[isinstance(compute, OpenVinoCompute)]
    )


def enlarged(model: Model, compute: Compute, tile: int = 72) -> np.ndarray:
    """A photo of 61×107 pixels, enlarged in several windows."""
    with DeviceThread() as thread:
        engine = Engine(model.manifest, compute, thread, tile)
        return engine.upscale(photo(61, 107), model.manifest.networks[0].factor).astype(int)


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("make", [communities.safmn, communities.omnisr, communities.swin2sr])
def test_converted_networks_make_the_pixels_of_torch_in_tiles(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    model = communities.version(tmp_path, make)
    assert trial_process.refusal(model, tmp_path / "made") is None
    tried = OpenVinoCompute(model, tried={model.manifest.networks[0].factor: tmp_path / "made" / "graph.xml"})
    wanted = enlarged(model, TorchCompute(model, "cpu", "float32"))
    assert np.abs(enlarged(model, tried) - wanted).max() <= 1
    assert wanted.std() > 1
    assert tried.precision == "float32"


def test_a_network_whose_squares_become_constant_is_left_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some such networks end the process of a trial: OpenVINO accesses memory that it has not."""
    caplog.set_level(logging.INFO, "upres.worker")
    monkeypatch.setattr(trials, "COMMAND", communities.TRIAL)
    model = communities.version(tmp_path / "dat", communities.dat)
    assert not runtimes.try_openvino(model, tmp_path)
    assert type(runtimes.choose(model, CPU, tmp_path)) is TorchCompute
    assert "dat 1 runs in torch, because OpenVINO was tried: " in caplog.text
    assert any(sign in caplog.text for sign in ("41 × 87 pixels", "ended by signal")), caplog.text


def test_a_network_that_is_slower_or_not_finite_or_cannot_be_converted_is_refused(
    span: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(trial_process, "_seconds", lambda factor, batch, compute: 1.0)
        assert "1.0 times the processor time" in str(trial_process.refusal(span, tmp_path / "slow"))
    huge = communities.version(tmp_path / "huge", communities.esrgan, times=1e30)
    assert "is not finite" in str(trial_process.refusal(huge, tmp_path / "infinite"))

    def fail(*arguments: object) -> None:
        raise RuntimeError("no such operation\nfor details see …")

    monkeypatch.setattr(trial_process, "converted", fail)
    reason = trial_process.refusal(span, tmp_path / "failed")
    assert reason == "the conversion failed (RuntimeError: no such operation)"


def test_a_worker_tries_once_and_then_starts_from_the_cache(
    span: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "upres.worker")
    monkeypatch.setattr(trials, "COMMAND", communities.TRIAL)
    (tmp_path / "openvino").mkdir()  # another model's trial made it
    assert runtimes.untried(span, CPU, tmp_path)
    assert type(runtimes.choose(span, CPU, tmp_path)) is TorchCompute, "before the trial"
    assert runtimes.try_openvino(span, tmp_path), caplog.text
    assert type(runtimes.choose(span, CPU)) is TorchCompute, "without a cache"
    assert not runtimes.untried(span, CPU, tmp_path)
    first = runtimes.choose(span, CPU, tmp_path)
    assert type(first) is OpenVinoCompute, caplog.text
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", "raise SystemExit('tried again')"))
    assert runtimes.try_openvino(span, tmp_path)
    again = runtimes.choose(span, CPU, tmp_path)
    wanted = enlarged(span, TorchCompute(span, "cpu", "float32"))
    for compute in (first, again):
        assert np.abs(enlarged(span, compute) - wanted).max() <= 1
    [graph] = tmp_path.glob("openvino/*/graph.bin")
    graph.write_bytes(b"\0" * graph.stat().st_size)
    assert type(runtimes.choose(span, CPU, tmp_path)) is TorchCompute
    assert not runtimes.try_openvino(span, tmp_path)
    assert "tried again" in caplog.text


ENDS = {
    "import os; os.kill(os.getpid(), 11)": "ended by signal SIGSEGV",
    "raise MemoryError('no room')": r"failed with code 1 \(MemoryError: no room\)",
    "print('hello')": "failed with code 0",
    "print('{}')": "failed with code 0",
    "import signal; signal.pause()": "took more than",
}


@pytest.mark.parametrize("code", ENDS)
def test_a_trial_that_dies_or_hangs_leaves_the_network_to_torch(
    span: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    caplog.set_level(logging.INFO, "upres.worker")
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", code))
    if "pause" in code:
        monkeypatch.setattr(trials, "TRIAL_SECONDS", 0.2)
    assert not runtimes.try_openvino(span, tmp_path)
    assert type(runtimes.choose(span, CPU, tmp_path)) is TorchCompute
    assert pytest.RaisesExc(Exception, match=ENDS[code]).matches(Exception(caplog.text))
    [kept] = tmp_path.glob("openvino/*")
    assert [path.name for path in kept.iterdir()] == [trials.INTERRUPTED]


def test_a_finding_is_kept_and_an_interrupted_trial_is_repeated(
    span: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "upres.worker")
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", "raise SystemExit('interrupted')"))
    assert not runtimes.try_openvino(span, tmp_path)
    finding = 'print(\'{"reason": "it is too slow"}\')'
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", finding))
    assert not runtimes.try_openvino(span, tmp_path)
    assert "it is too slow" not in caplog.text
    monkeypatch.setattr(trials, "AGAIN_SECONDS", -1)
    assert not runtimes.try_openvino(span, tmp_path)
    assert "it is too slow" in caplog.text
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", "raise SystemExit('tried again')"))
    prune(tmp_path)
    assert not runtimes.try_openvino(span, tmp_path)
    assert "tried again" not in caplog.text


def test_an_outcome_that_cannot_be_kept_costs_no_trial(
    span: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino").write_bytes(b"a file where a folder should be")
    monkeypatch.setattr(trials, "COMMAND", ("no-such-program",))
    with pytest.raises(OSError, match="openvino"):
        runtimes.try_openvino(span, tmp_path)
    assert type(runtimes.choose(span, CPU, tmp_path)) is TorchCompute


@pytest.mark.usefixtures("faster")
def test_mixed_community_networks_are_converted_for_each_strength(span: Model, tmp_path: Path) -> None:
    base = communities.version(tmp_path, communities.span, seed=1)
    mixes = [span._replace(base=base, strength=strength) for strength in (0.0, 0.3)]
    made = []
    for number, mix in enumerate(mixes):
        assert trial_process.refusal(mix, tmp_path / str(number)) is None
        made.append(enlarged(mix, OpenVinoCompute(mix, tried={2: tmp_path / str(number) / "graph.xml"})))
        assert np.abs(made[-1] - enlarged(mix, TorchCompute(mix, "cpu", "float32"))).max() <= 1
    assert np.abs(made[0] - made[1]).max() > 1
    [network] = span.manifest.networks
    graphs = {trials._Kept(network, one, tmp_path).graph for one in (*mixes, span)}
    assert len(graphs) == 3, "the cache keeps strengths apart"


def test_a_refusal_holds_for_all_strengths(
    span: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = communities.version(tmp_path, communities.span, seed=1)
    first, second = (span._replace(base=base, strength=strength) for strength in (0.3, 0.4))
    monkeypatch.setattr(trials, "COMMAND", (sys.executable, "-c", 'print(\'{"reason": "it is too slow"}\')'))
    assert not runtimes.try_openvino(first, tmp_path)
    assert not runtimes.untried(second, CPU, tmp_path)
    assert runtimes.untried(span, CPU, tmp_path), "its weights alone are another network"


def test_conversions_are_not_reported_to_anyone() -> None:
    from openvino.tools.ovc import telemetry_utils  # type: ignore[import-untyped]

    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(("smallest", "multiple_of"), [(1, 1), (16, 1), (8, 8), (64, 16), (7, 3)])
def test_windows_are_padded_as_for_torch(smallest: int, multiple_of: int, square: bool) -> None:
    from spandrel import SizeRequirements

    wants = SizeRequirements(minimum=smallest, multiple_of=multiple_of, square=square)
    required = Sides(smallest=max(1, wants.minimum), multiple_of=multiple_of, square=square)
    for height, width in ((1, 1), (5, 40), (40, 3), (64, 64), (17, 65)):
        windows = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        expected = _padded(torch.from_numpy(windows).permute(0, 3, 1, 2).float(), *wants.get_padding(width, height))
        assert np.array_equal(sides.padded(windows, required), expected.permute(0, 2, 3, 1).numpy())
