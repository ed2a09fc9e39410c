"""Exports (ONNX, TorchScript, ...) and smaller variants of a model: their output is compared with the original."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.cleaners import blur, imported
from tests.support.paths import ROOT, SAMPLES
from tests.support.pushing import Pushed
from upres.client import Client
from upres.core import registry, registry_changes
from upres.core.errors import ModelError
from upres.core.manifest import Manifest
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.models import export, folder, variants
from upres.worker.engine import runtimes
from upres.worker.engine.compute import OutOfMemory
from upres.worker.engine.device import choose
from upres.worker.engine.networks import EDSR
from upres.worker.engine.onnx_compute import OnnxCompute
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model, open_folder

CPU = choose("cpu")


def tiny() -> export.Portable:
    torch.manual_seed(0)
    return export.Portable(EDSR(2, width=8, depth=1)).eval()


@pytest.mark.parametrize("form", ["onnx", "torchscript", "exported-program"])
def test_each_export_format_gives_the_same_output_as_torch(form: str, tmp_path: Path) -> None:
    found = export.export_network(tiny(), 2, form, tmp_path / f"tiny{export.SUFFIXES[form]}")
    assert found.most_difference <= 1e-4
    assert found.most_decibels <= 0.001
    assert "3 sizes" in str(found)


@pytest.mark.parametrize("form", ["onnx", "exported-program"])
def test_no_export_contains_paths_or_source_names_of_this_machine(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"tiny{export.SUFFIXES[form]}"
    export.export_network(tiny(), 2, form, path)
    written = [path.read_bytes()]
    if form == "exported-program":
        with zipfile.ZipFile(path) as parts:
            written = [parts.read(name) for name in parts.namelist()]
    assert len(b"".join(written)) > 1000
    for trace in (str(ROOT), "networks.py", "site-packages", "stack_trace"):
        assert not any(trace.encode() in part for part in written), trace


@pytest.mark.parametrize("wrong", ["a little", "rounded", "another size"])
def test_an_export_whose_output_differs_from_torch_is_refused(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(module: export.Portable, path: Path) -> export.Run:
        def run(pixels: Any) -> Any:
            enlarged, exact = (tensor.numpy() for tensor in module(torch.from_numpy(pixels)))
            match wrong:
                case "a little":
                    return enlarged, exact + 2e-4
                case "rounded":
                    return enlarged // 2 * 2, exact
                case _:
                    return enlarged[:, 1:], exact

        return run

    monkeypatch.setitem(export.FORMS, "onnx", write)
    with torch.inference_mode(), pytest.raises(ModelError, match="torch"):
        export.export_network(tiny(), 2, "onnx", tmp_path / "x.onnx")


@pytest.fixture(scope="module")
def graphs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The ONNX export of the bundled model."""
    to = tmp_path_factory.mktemp("graphs")
    assert [name for name, _ in export.export(model, "onnx", to)] == ["faithful-x4.onnx", "faithful-x2.onnx"]
    return open_folder(to)


def test_onnx_runtime_gives_the_same_pixels_as_torch_within_one_level(model: Model, graphs: Model) -> None:
    assert graphs.manifest.version == "1-onnx"
    assert graphs.manifest.factors == model.manifest.factors
    windows = [folder.photo(70, 90, shift) for shift in range(3)]
    ours, theirs = TorchCompute(model, "cpu", "float32"), OnnxCompute(graphs, CPU)
    for factor in (2, 4):
        expected, found = ours.start(factor, windows)(), theirs.start(factor, windows)()
        assert np.abs(expected.astype(int) - found).max() <= 1


def test_errors_of_onnx_runtime_become_upres_errors(graphs: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    running = OnnxCompute(graphs, CPU)
    damaged = graphs._replace(files={**graphs.files, "faithful-x4.onnx": SAMPLES / "coffee.png"})
    assert damaged.manifest.networks[0].graph
    with pytest.raises(ModelError, match=r"faithful-x4\.onnx is no graph"):
        OnnxCompute(damaged, CPU)
    with pytest.raises(ModelError, match="on a CPU or on CUDA"):
        OnnxCompute(graphs, CPU._replace(kind="mps"))

    class Full:
        def run(self, *arguments: Any) -> None:
            raise RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"
            )

    monkeypatch.setitem(running._sessions, 2, Full())
    with pytest.raises(OutOfMemory):
        running.start(2, [folder.photo(8, 8)])


def test_the_runtime_of_a_model_depends_on_the_installed_packages(
    model: Model, weights: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(wanted: Model, *missing: str) -> str:
        monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name in missing else name)
        return type(runtimes.choose(wanted, CPU)).__name__

    assert chosen(model) == chosen(model, "torch") == chosen(weights) == "OpenVinoCompute"
    assert chosen(model, "openvino") == chosen(weights, "openvino") == "TorchCompute"
    assert chosen(model, "torch", "openvino") == "OnnxCompute"
    for wanted, missing, says in (
        (weights, ("torch",), "needs torch"),
        (model, ("torch", "openvino", "onnxruntime"), r"upres\[onnx\]"),
    ):
        with pytest.raises(ModelError, match=says):
            chosen(wanted, *missing)


def test_the_float16_variant_has_half_the_size_and_nearly_equal_psnr(model: Model, tmp_path: Path) -> None:
    half = variants.make(model, "float16", SAMPLES, tmp_path)
    assert half.manifest.version == "1-float16"
    assert half.bytes < 0.51 * model.bytes
    for network in half.manifest.networks:
        assert network.quality["psnr_loss_db"] <= 0.01
        assert network.quality["photos_psnr_db"] > 28
        assert network.quality["seconds_per_megapixel"] > 0


def test_the_int8_variant_is_below_1_6_megabytes_and_loses_below_0_1_db(
    model: Model, tmp_path: Path, local: Local
) -> None:
    part = {"networks": model.manifest.networks[1:], "golden": model.manifest.golden[1:]}
    only_two = model._replace(manifest=model.manifest.model_copy(update=part))
    small = variants.make(only_two, "int8", SAMPLES, tmp_path)
    [network] = small.manifest.networks
    assert network.quality["psnr_loss_db"] < 0.1
    assert network.quality["megabytes"] < 1.6
    assert type(runtimes.choose(small, CPU)) is OnnxCompute


def test_a_network_with_factor_one_is_exported_and_made_smaller(tmp_path: Path) -> None:
    model = imported(tmp_path, "blur", blur())
    with_graph = tmp_path / "onnx"
    assert [name for name, _ in export.export(model, "onnx", with_graph)] == ["blur-x1.onnx"]
    assert open_folder(with_graph).manifest.factors == (1,)
    for precision in ("float16", "int8"):
        [network] = variants.make(model, precision, SAMPLES, tmp_path / precision).manifest.networks
        assert network.factor == 1
        assert 20 < network.quality["photos_psnr_db"] < 40  # of a photo with noise, against the photo
        assert network.quality["psnr_loss_db"] < 0.1


def test_a_variant_without_photos_to_measure_it_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no photos"):
        variants.make(model, "float16", tmp_path, tmp_path / "out")


def test_a_version_that_loses_too_much_psnr_cannot_become_stable(store: Store, tmp_path: Path) -> None:
    pushed = Pushed(store, "losing", tmp_path)
    pushed.push("1")
    lossy = [{**one, "quality": {"psnr_loss_db": 0.11}} for one in pushed.fields["networks"]]
    pushed.push("1-int8", networks=lossy)
    for label in ("stable", "canary"):
        if label == "stable":
            with pytest.raises(ModelError, match=r"loses 0\.11 dB"):
                registry_changes.relabel(store, "losing", {label: "1-int8"})
        else:
            registry_changes.relabel(store, "losing", {label: "1-int8"})
            with pytest.raises(ModelError, match=r"loses 0\.11 dB"):
                registry_changes.promote(store, "losing")
    assert registry.labels(store, "losing").labels["stable"] == "1"


def test_an_onnx_export_can_be_pushed_labelled_and_served(local: Local, tmp_path: Path, png: bytes) -> None:
    environment = {**os.environ, **local.environment}

    def upres(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "upres"), "models", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    received = upres("export", "faithful", "--to", "onnx", "--out", "graphs")
    assert received.count("of torch, PSNR within 0.0000 dB") == 2
    upres("push", "graphs")
    upres("label", "faithful", "onnx=1-onnx")
    with Client(local.url) as client:
        ours = client.upscale(png, 2).download()
        assert client.upscale(png, 2, model_version="onnx").result.model_version == "1-onnx"
    assert ours
    manifest = Manifest.model_validate(json.loads((tmp_path / "graphs/manifest.json").read_text()))
    assert [network.graph.file for network in manifest.networks if network.graph] == [
        "faithful-x4.onnx",
        "faithful-x2.onnx",
    ]
    upres("label", "faithful", "onnx=")
