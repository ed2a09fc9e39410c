"""Tests of model weight files made by others: detection, safe loading, measurement, and use by a worker."""

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.support import communities, spandrel_on_cpu
from tests.support.checkpoints import ABOUT, calm, saved
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import registry_changes, tiling
from upres.core.errors import ModelError
from upres.core.manifest import Sides
from upres.core.tiling import ORIENTATIONS
from upres.embedded.stack import Local
from upres.models import checkpoint_files, community, probe
from upres.worker import version_trials
from upres.worker.context import WorkerContext
from upres.worker.engine import trials
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.networks import EDSR, RRDBNet, SRVGGNetCompact
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model, open_folder
from upres.worker.service import prepare

spandrel_on_cpu.declare()


def span() -> dict[str, torch.Tensor]:
    from spandrel.architectures.SPAN import SPAN

    return calm(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2))


def rcan() -> dict[str, torch.Tensor]:
    from spandrel.architectures.RCAN import RCAN

    return calm(RCAN(scale=2, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4))


def swinir() -> dict[str, torch.Tensor]:
    from spandrel.architectures.SwinIR import SwinIR

    size = {"img_size": 16, "window_size": 8, "embed_dim": 16, "depths": [2], "num_heads": [2], "mlp_ratio": 2}
    return calm(SwinIR(upscale=2, upsampler="pixelshuffledirect", **size))


def test_rrdb_and_compact_files_use_the_networks_of_upres(tmp_path: Path) -> None:
    for module, architecture, radius in (
        (RRDBNet(4, width=8, depth=1, growth=4), "rrdb", 19),
        (SRVGGNetCompact(2, width=8, depth=3), "compact", 5),
    ):
        file = saved({"params_ema": calm(module), "iter": 7}, tmp_path / f"{architecture}.pth")
        [network] = community.convert(file, tmp_path / architecture, ABOUT).manifest.networks
        assert (network.architecture, network.factor, network.receptive_radius) == (
            architecture,
            module.factor,
            radius,
        )
        assert network.margin <= radius
        assert probe.receptive_radius(module.eval()) == radius


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # SwinIR in spandrel causes it
def test_span_swinir_and_rcan_are_detected_and_measured(tmp_path: Path) -> None:
    [network] = community.convert(
        saved(span(), tmp_path / "span.safetensors"), tmp_path / "span", ABOUT
    ).manifest.networks
    assert (network.architecture, network.factor) == ("spandrel", 2)
    assert network.receptive_radius == 21
    assert community.describe_receptive_field(network).startswith("receptive radius 21 pixels, halo ")
    assert network.sides == Sides()
    [network] = community.convert(saved(swinir(), tmp_path / "swin.pth"), tmp_path / "swin", ABOUT).manifest.networks
    assert network.sides == Sides(smallest=16)
    [network] = community.convert(saved(rcan(), tmp_path / "rcan.pth"), tmp_path / "rcan", ABOUT).manifest.networks
    assert network.receptive_radius is None
    assert "sees the whole image" in community.describe_receptive_field(network)


def test_the_receptive_radius_of_the_bundled_network_is_measured(model: Model) -> None:
    network = model.manifest.networks[1]
    module = EDSR(2, **network.parameters).eval()
    assert probe.receptive_radius(module) == network.receptive_radius
    assert probe.receptive_radius(module, side=31) is None


class Malicious:
    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._witness}",)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"params_ema": m}, lambda m: {"params": {"a": m}}])
def test_a_pickle_that_contains_code_is_refused_and_not_run(tmp_path: Path, wrap: Any) -> None:
    witness, file = tmp_path / "witness", tmp_path / "evil.pth"
    torch.save(wrap(Malicious(witness)), file)
    with pytest.raises(ModelError, match="could run code"):
        community.convert(file, tmp_path / "out", ABOUT)
    file.write_bytes(pickle.dumps(wrap(Malicious(witness))))
    with pytest.raises(ModelError):
        community.convert(file, tmp_path / "out", ABOUT)
    assert not witness.exists()
    assert not (tmp_path / "out").exists()


def test_unusable_weight_files_are_refused_with_a_reason(tmp_path: Path) -> None:
    for name, tensors, says in (
        ("unknown.safetensors", {"a": torch.zeros(3)}, "recognises no architecture"),
        ("list.pth", [1, 2], "no weights"),
        ("numbers.pth", {"params": {"a": 1}}, "no weights"),
    ):
        with pytest.raises(ModelError, match=says):
            community.convert(saved(tensors, tmp_path / name), tmp_path / "out", ABOUT)
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ModelError, match=name):
            community.convert(tmp_path / name, tmp_path / "out", ABOUT)


@pytest.mark.parametrize("damage", [lambda one: one * float("nan"), lambda one: one * 1e6, lambda one: one * 5000])
def test_weights_that_make_no_image_are_refused_and_nothing_is_written(tmp_path: Path, damage: Any) -> None:
    for name, tensors in (("compact", calm(SRVGGNetCompact(2, width=8, depth=3))), ("span", span())):
        last = [name for name in tensors if name.endswith(".weight")][-1]
        file = saved({**tensors, last: damage(tensors[last])}, tmp_path / f"{name}.pth")
        with pytest.raises(ModelError, match=r"not finite|is no image"):
            community.convert(file, tmp_path / "out", ABOUT)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "generator.", "model.", "module.", "_orig_mod.module.", "module.model.generator."]
)
def test_prefixes_of_all_names_are_left_out(tmp_path: Path, prefix: str) -> None:
    for tensors in (calm(SRVGGNetCompact(2, width=8, depth=1)), span()):
        prefixed = {prefix + name: tensor for name, tensor in tensors.items()}
        _, fields, named = community._recognised(checkpoint_files.read(saved(prefixed, tmp_path / "prefixed.pth")))
        assert fields["factor"] == 2
        assert named.keys() == tensors.keys()


def test_a_prefix_that_belongs_to_the_names_or_to_some_of_them_is_kept(tmp_path: Path) -> None:
    from spandrel.architectures.ESRGAN import ESRGAN

    old = {"model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"}
    esrgan = calm(ESRGAN(num_filters=8, num_blocks=1, scale=2))
    assert old <= esrgan.keys()
    assert community._recognised(esrgan)[2].keys() == esrgan.keys()
    assert community._recognised({f"module.{name}": one for name, one in esrgan.items()})[2].keys() == esrgan.keys()
    compact = calm(SRVGGNetCompact(2, width=8, depth=1))
    mixed = {f"generator.{name}": one for name, one in compact.items()} | {"discriminator.weight": torch.zeros(3)}
    with pytest.raises(ModelError, match="recognises no architecture"):
        community._recognised(mixed)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # SwinIR in spandrel causes it
def test_tiles_of_a_network_with_window_attention_match_the_whole_image(tmp_path: Path) -> None:
    """Its squares of 8 pixels are those of the whole image, at widths that are no multiple of 8 as well."""
    tensors = {name: one * 5 if one.ndim > 1 and one.is_floating_point() else one for name, one in swinir().items()}
    model = community.convert(saved(tensors, tmp_path / "swin.pth"), tmp_path / "swin", ABOUT)
    [network] = model.manifest.networks
    assert (network.alignment, network.grid, network.margin % 8) == (8, 8, 0)
    with DeviceThread() as thread:
        engine = Engine(model.manifest, TorchCompute(model, "cpu"), thread)
        for width in (75, 77, 83):
            pixels = np.random.default_rng(0).integers(0, 256, (61, width, 3), np.uint8)
            engine.limits.tile = 1000
            whole = engine.upscale(pixels, 2)
            engine.limits.tile = tiling.smallest(model.manifest)
            assert len(tiling.passes(model.manifest, 61, width, 2, engine.tile)[0].tiles) > 1
            assert np.abs(engine.upscale(pixels, 2).astype(int) - whole).max() <= 1
            assert whole.std() > 10
        tiled = engine.upscale(pixels, 2, orientations=ORIENTATIONS)
        engine.limits.tile = 1000
        assert np.abs(engine.upscale(pixels, 2, orientations=ORIENTATIONS).astype(int) - tiled).max() <= 1


def test_inconsistent_weights_are_refused_and_tied_weights_accepted(tmp_path: Path) -> None:
    compact = calm(SRVGGNetCompact(2, width=8, depth=3))
    shared = compact["body.0.weight"]
    for number, tensors in enumerate(
        (
            {"body.linear_encoding.weight": torch.zeros(4, 4)},
            {**compact, "body.8.weight": torch.zeros(12)},
            {name: tensor for name, tensor in span().items() if "conv_1" not in name},
            {name: tensor[:1] for name, tensor in rcan().items()},
            {1: torch.zeros(2)},
        )
    ):
        with pytest.raises(ModelError):
            community.convert(saved(tensors, tmp_path / f"{number}.pth"), tmp_path / "out", ABOUT)
    tied = {"params": {**compact, "body.2.weight": compact["body.4.weight"]}}
    assert community.convert(saved(tied, tmp_path / "tied.pth"), tmp_path / "tied", ABOUT)
    assert shared.shape == (8, 3, 3, 3)


def test_damaged_weight_files_raise_only_model_error(tmp_path: Path) -> None:
    whole = saved({"params": calm(SRVGGNetCompact(2, width=4, depth=1))}, tmp_path / "whole.pth").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for at in random.integers(0, len(damaged), 8):
            damaged[at] = random.integers(0, 256)
        (tmp_path / "damaged.pth").write_bytes(damaged[: random.integers(1, len(damaged))])
        with suppress(ModelError):
            checkpoint_files.read(tmp_path / "damaged.pth")


def test_the_model_name_is_validated_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="name"):
        community.convert(tmp_path / "nowhere.pth", tmp_path / "out", {**ABOUT, "name": "Mine"})


def test_an_imported_model_is_pushed_and_used_for_a_job(
    local: Local, tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps: import the model, push it to the registry, and run a job with it."""
    file = saved({"params": calm(SRVGGNetCompact(2, width=8, depth=3))}, tmp_path / "compact.pth")
    environment = {**os.environ, **local.environment}

    def upres(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "upres"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "upres models push imported" in upres("models", "import", str(file), "--name", "imported")
    assert upres("models", "push", "imported") == "imported 1 is in the registry\n"
    assert "imported" in upres("models", "list")
    with Client(local.url) as client:
        assert client.upscale(png, 2, model="imported").result.model == "imported"


def test_a_span_model_is_served_and_its_tiles_match_the_whole_image(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    community.convert(saved(span(), tmp_path / "span.pth"), tmp_path / "span", {**ABOUT, "name": "span"})
    registry_changes.push(local.store, tmp_path / "span")
    for name, value in local.environment.items():
        monkeypatch.setenv(name, value)
    gate = tmp_path / "gate"
    waits = f'while [ ! -e "{gate}" ]; do sleep 0.05; done; exec "$@"'
    monkeypatch.setattr(trials, "COMMAND", ("bash", "-c", waits, "trial", *communities.TRIAL))
    monkeypatch.setattr(version_trials, "COMMAND", communities.VERSION_TRIAL)
    context = prepare(local.settings.model_copy(update={"model": "span"}))
    try:
        [ready] = context.models.ready()
        assert ready.digest == open_folder(tmp_path / "span").digest
        pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8)
        with context.models.use("span", _ref(ready)) as served:
            assert type(served.engine.compute) is TorchCompute, "a trial delays no job"
            gate.touch()
            wait_until(lambda: _compute(context, ready) is OpenVinoCompute, 600)
            assert type(served.engine.compute) is TorchCompute, "the job keeps what it began with"
        with context.models.use("span", _ref(ready)) as served:
            whole = served.engine.upscale(pixels, 2)
            served.engine.limits.tile = 60
            tiled = served.engine.upscale(pixels, 2)
        assert np.abs(whole.astype(int) - tiled).max() <= 1
    finally:
        context.decoders.close()
        context.thread.close()


def _compute(context: WorkerContext, model: Model) -> type:
    with context.models.use("span", _ref(model)) as served:
        return type(served.engine.compute)


def _ref(model: Model) -> Any:
    from upres.core.served_models import ModelRef

    return ModelRef(version=model.manifest.version, digest=model.digest, factors=model.manifest.factors)


@pytest.mark.parametrize(("scale", "offered"), [(1.0, True), (1e6, False)])
def test_float16_is_offered_exactly_where_it_does_not_overflow(tmp_path: Path, scale: float, offered: bool) -> None:
    """The weights of one layer are larger, and those of the next smaller: only activations between them grow."""
    network = calm(SRVGGNetCompact(4, 16, 2))
    names = [name for name in network if name.endswith("weight") and network[name].ndim == 4]
    network[names[0]] = network[names[0]] * scale
    network[names[1]] = network[names[1]] / scale
    model = community.convert(saved(network, tmp_path / "compact.pth"), tmp_path / "made", {**ABOUT, "name": "compact"})
    precisions = model.manifest.networks[0].precisions
    assert ("float16" in precisions) is offered
    assert {"bfloat16", "float32"} <= set(precisions)
