"""Training writes versions that can be served; its data, degradation, discriminator and distillation are correct."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.support.paths import ROOT, SAMPLES, pairs
from upres.models import folder, training
from upres.models.answers import Answers
from upres.models.degrade import degrade, jpeg
from upres.models.discriminator import Discriminator
from upres.models.distill import Distillation
from upres.models.folder import NewNetwork
from upres.models.photos import Photos
from upres.worker.engine.networks import EDSR, RRDBNet
from upres.worker.model import Model, open_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos() -> Photos:
    return Photos.load(SAMPLES, CPU)


def test_training_pairs_are_patches_of_the_photos_and_their_reductions(photos: Photos) -> None:
    assert len(photos.shapes) == 3
    torch.manual_seed(0)
    small, large = photos.pairs(16, 24, 4)
    assert (small.shape, large.shape) == ((16, 3, 24, 24), (16, 3, 96, 96))
    assert (small * 255 - (small * 255).round()).abs().max() < 1e-4
    assert large.std() > 0.1
    halved = functional.avg_pool2d(large, 4)
    assert (small - halved)[..., 2:-2, 2:-2].abs().mean() < 0.02


def test_photos_are_reduced_like_the_bicubic_pairs_of_set5() -> None:
    lr = sorted((pairs() / "Set5_x4").glob("*_LR.png"))[0]
    with Image.open(lr) as small, Image.open(lr.with_name(lr.name.replace("_LR", "_HR"))) as large:
        wanted, pixels = (np.asarray(image.convert("RGB")) for image in (small, large))
    height, width = (side // 4 * 4 for side in pixels.shape[:2])
    image = torch.from_numpy(pixels[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255
    made = functional.interpolate(image, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1) * 255
    difference = made[0].permute(1, 2, 0).round().numpy() - wanted[: height // 4, : width // 4]
    difference = difference[4:-4, 4:-4]  # without the border: MATLAB mirrors pixels there, and Photos cuts it off
    assert np.abs(difference).mean() < 0.15
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_the_simulated_jpeg_artefacts_are_close_to_those_of_real_jpeg(quality: int) -> None:
    with Image.open(SAMPLES / "coffee.png") as image:
        grey = image.convert("L").crop((100, 100, 196, 180))
    packed = io.BytesIO()
    grey.save(packed, "JPEG", quality=quality)
    with Image.open(packed) as opened:
        wanted = np.asarray(opened, np.float32)
    pixels = torch.from_numpy(np.asarray(grey, np.float32).copy()) / 255
    found = jpeg(pixels.expand(1, 3, -1, -1), torch.tensor([float(quality)]))[0, 0] * 255
    assert np.abs(found.numpy() - wanted).mean() < 0.6
    assert np.abs(wanted - np.asarray(grey, np.float32)).mean() > 0.7 or quality == 95


def test_degraded_patches_are_valid_images_and_vary_from_clean_to_noisy(photos: Photos) -> None:
    torch.manual_seed(1)
    large = photos.large(8, 128)
    made = [degrade(large, 4) for _ in range(8)]
    for small in made:
        assert small.shape == (8, 3, 32, 32)
        assert 0 <= small.min() <= small.max() <= 1
        assert (small * 255 - (small * 255).round()).abs().max() < 1e-3
    clean = functional.avg_pool2d(large, 4)
    distances = torch.stack([(small - clean).abs().mean((1, 2, 3)) for small in made])
    assert distances.min() < 0.01  # some patches are almost clean
    assert distances.max() > 0.02  # some patches are degraded


def test_the_discriminator_learns_to_tell_real_from_fake_patches(photos: Photos) -> None:
    torch.manual_seed(0)
    critic = Discriminator(8)
    optimiser = torch.optim.Adam(critic.parameters(), lr=3e-3)
    real = photos.large(8, 32)
    fake = functional.avg_pool2d(real, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    for _ in range(60):
        loss = functional.softplus(-critic(real).logits).mean() + functional.softplus(critic(fake).logits).mean()
        training.optimiser_step(loss, optimiser)
    assert float(critic(real).logits.detach().mean()) > 0 > float(critic(fake).logits.detach().mean())
    assert float(loss.detach()) < 1.1  # an untrained discriminator has a loss of 1.39


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = RRDBNet(4, 8, 1, 4)
    fields = {"architecture": "rrdb", "factor": 4, "parameters": {"width": 8, "depth": 1, "growth": 4}}
    about = {"name": "teacher", "version": "1", "licence": "MIT", "description": "A test."}
    to = tmp_path_factory.mktemp("teacher")
    folder.write(to, about, [NewNetwork({**fields, "receptive_radius": 19}, network.state_dict())])
    return to


@pytest.fixture(scope="module")
def taught(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with answers of the teacher."""
    file = tmp_path_factory.mktemp("answers") / "answers.npz"
    done = distill("answers", "--teacher", teacher, "--photos", SAMPLES, "--out", file, "--count", "6")
    assert done.returncode == 0, done.stderr
    assert "6 of 6 patches" in done.stdout
    return file


def distill(*options: str | Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "upres.models.distill", *options]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=100)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_patch_is_cut_and_turned_as_its_answer(taught: Path, factor: int) -> None:
    small = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    stored = Answers(small, small.repeat_interleave(4, 2).repeat_interleave(4, 3))
    patches, goals = stored.batch(16, 48, factor)
    assert goals.shape == (16, 3, 48 * factor, 48 * factor)
    assert torch.allclose(functional.avg_pool2d(goals, factor), patches, atol=1e-6)
    both = Answers.load([taught, taught], CPU)
    assert (both.small.shape, both.large.shape) == ((12, 3, 64, 64), (12, 3, 256, 256))


def test_distillation_reduces_the_distance_between_student_and_teacher(taught: Path) -> None:
    torch.manual_seed(0)
    stored = Answers.load([taught], CPU)
    for factor in (2, 4):
        run = Distillation(factor, {}, CPU)
        distances = [float(run.step(*stored.batch(2, 16, factor), done)) for done in np.linspace(0, 0.99, 30)]
        assert np.mean(distances[-4:]) < np.mean(distances[:4])


def test_an_interrupted_distillation_continues_and_becomes_a_version_with_a_base(taught: Path, tmp_path: Path) -> None:
    start = tmp_path / "faithful" / "1"
    start.parent.mkdir()
    start.symlink_to(ROOT / "models/faithful/1")
    size = ["--start", str(start), "--batch", "1", "--patch", "16"]
    for factor, trunk in ((4, []), (2, ["--trunk", str(tmp_path / "x4")])):
        out = tmp_path / f"x{factor}"
        first = distill("train", "--factor", str(factor), "--out", out, "--steps", "2", *size, *trunk, taught)
        assert first.returncode == 0, first.stderr
        again = distill("train", "--factor", str(factor), "--out", out, "--steps", "3", *size, *trunk, taught)
        assert "continues after step 2" in again.stdout, again.stderr
        assert [json.loads(line)["step"] for line in (out / "curve.jsonl").read_text().splitlines()] == [2, 3]
    to, options = tmp_path / "photo" / "1", ["--start", str(start), "--version", "1", "--strength", "0.4"]
    done = distill("version", "--out", to, *options, tmp_path / "x4", tmp_path / "x2")
    assert done.returncode == 0, done.stderr
    made = open_folder(to)
    assert (made.manifest.factors, made.strength) == ((2, 4, 8), 0.4)
    assert made.base is not None
    assert made.base.digest == open_folder(start).digest


def command(module: str, *options: str | Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", f"models.{module}", "--photos", SAMPLES, *options]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=100)


def test_training_writes_a_model_version_with_its_measured_quality(tmp_path: Path, model: Model) -> None:
    size = ["--batch", "2", "--patch", "16", "--pairs", str(pairs())]
    start = ["--start", str(ROOT / "models/faithful/1")]
    done = command("train", "--out", tmp_path, "--version", "9", "--factors", "2", "--seconds", "6", *size, *start)
    assert done.returncode == 0, done.stderr
    assert "faithful 9 is in" in done.stdout
    made = open_folder(tmp_path)
    [network] = made.manifest.networks
    assert network.quality["set5_psnr_db"] > 30  # training started from the trunk of the network for factor 4
    assert len(made.manifest.golden) == 1
    assert EDSR(2, **network.parameters).state_dict().keys() == model_tensors(made).keys()


def model_tensors(model: Model) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(model.files[model.manifest.networks[0].file])


def test_training_commands_name_a_missing_input_in_one_line(tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "out"), "--version", "1", "--pairs", str(tmp_path)]
    line = [sys.executable, "-m", "upres.models.train", "--photos", str(tmp_path), *options]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no photos of at least" in done.stderr
    done = distill("answers", "--teacher", tmp_path, "--photos", SAMPLES, "--out", tmp_path / "answers.npz")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "manifest.json: No such file" in done.stderr
    done = command("train", *options, "--factors", "4,2", "--seconds", "1")
    assert done.returncode == 2
