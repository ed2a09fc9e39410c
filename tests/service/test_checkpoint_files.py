"""Files given to `upres models import`: a sentence says what each is, and a failure leaves nothing behind."""

import os
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save

from tests.support.checkpoints import calm, saved
from tests.support.waiting import wait_until
from upres.core.errors import ModelError
from upres.models import build_commands, checkpoint_files, community
from upres.worker.engine.networks import SRVGGNetCompact


class Doubler(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * 2


def torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated
        untyped: Any = torch.jit
        untyped.trace(Doubler(), torch.zeros(2)).save(path)


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(Doubler(), (torch.zeros(2),)), path)


def whole_module(path: Path) -> None:
    torch.save(Doubler(), path)


def of_old_torch(path: Path) -> None:
    torch.save(Doubler(), path, _use_new_zipfile_serialization=False)


def cut_off(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def other_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme/data.txt", "nothing")


def of(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


POINTER = of(b"version https://git-lfs.github.com/spec/v1\noid sha256:4665260\nsize 67040989\n")
FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("pointer.pth", POINTER, "pointer of git-LFS"),
    ("pointer.safetensors", POINTER, "pointer of git-LFS"),
    ("page.pth", of(b"\n<!DOCTYPE html><html>"), "web page"),
    ("page.safetensors", of(b"<html>"), "web page"),
    ("empty.pth", of(b""), "is empty"),
    ("empty.SafeTensors", of(b""), "is empty"),
    ("text.pth", of(b"weights"), "neither a checkpoint"),
    ("text.safetensors", of(b"weights"), "no safetensors file"),
    ("cut.safetensors", of(save({"a": torch.zeros(99)})[:100]), "no safetensors file"),
    ("script.pth", torchscript, "TorchScript"),
    ("script.safetensors", torchscript, "TorchScript"),
    ("program.pt2", exported, r"torch\.export"),
    ("module.pth", whole_module, "more than tensors"),
    ("old.pth", of_old_torch, "more than tensors"),
    ("cut.pth", cut_off, "damaged"),
    ("archive.pth", other_archive, "zip archive without a checkpoint"),
]


@pytest.mark.parametrize(("name", "write", "says"), FILES, ids=[name for name, _, _ in FILES])
def test_what_a_file_is_that_cannot_be_imported_is_said_in_a_sentence(
    tmp_path: Path, name: str, write: Callable[[Path], object], says: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(ModelError, match=says) as refused:
        checkpoint_files.read(tmp_path / name)
    assert "weights_only" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a.pth", "a.SAFETENSORS", "a.safetensors", "a", "a.ckpt"])
def test_safetensors_are_read_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(save({"a": torch.ones(2)}))
    assert checkpoint_files.read(tmp_path / name)["a"].tolist() == [1, 1]


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint_files.read(tmp_path)


@pytest.mark.parametrize(
    "failure", [ModelError("wrong"), RuntimeError("a bug"), OSError(28, "No space left on device")]
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_import_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, exists: bool
) -> None:
    def convert(file: Path, to: Path, about: object) -> None:
        to.mkdir()
        (to / "weights.safetensors").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(community, "convert", convert)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pth").write_bytes(b"")
    if exists:
        (tmp_path / "new").mkdir()
    arguments = ["mine.pth", "--name", "mine", "--out", "new" if exists else "new/folder/mine"]
    assert CliRunner().invoke(build_commands.import_file, arguments).exit_code == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.pth", *(["new"] if exists else [])]


INTERRUPTED = """
import time
from pathlib import Path
from upres.models.command_support import new_version

with new_version(Path("mine"), "mine") as made:
    made.mkdir()
    (made / "weights.safetensors").write_bytes(b"half")
    Path("began").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=tmp_path) as process:
        try:
            wait_until((tmp_path / "began").exists, 60)
            process.send_signal(number)
            assert process.wait(30) == -number
        finally:
            process.kill()
    assert os.listdir(tmp_path) == ["began"]


def test_an_import_is_written_when_it_has_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(calm(SRVGGNetCompact(2, width=4, depth=1)), tmp_path / "mine.pth")
    done = CliRunner().invoke(build_commands.import_file, ["mine.pth", "--name", "mine"], catch_exceptions=False)
    assert done.output.startswith("mine: compact, factor 2")
    assert (tmp_path / "mine" / "manifest.json").exists()
    for wrong in (["--name", "Mine"], ["--name", "mine", "--version", "stable"], ["--name", "index.json"]):
        refused = CliRunner().invoke(build_commands.import_file, ["mine.pth", "--out", "other", *wrong])
        assert (refused.exit_code, refused.output.count("\n")) == (1, 1)
    assert sorted(os.listdir(tmp_path)) == ["mine", "mine.pth"]


WITHOUT = """
import importlib.abc, sys
from click.testing import CliRunner

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from upres.cli import main
for arguments in {commands!r}:
    done = CliRunner().invoke(main, ["models", *arguments], catch_exceptions=False)
    assert done.exit_code == 1, (arguments, done.output)
    print(done.output.splitlines()[-1])
"""


def test_without_torch_each_command_says_which_extra_to_install(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    commands = [
        ["import", "mine.pth", "--name", "mine"],
        ["mix", "faithful", "photo", "--name", "both"],
        ["export", "faithful", "--to", "onnx"],
        ["variant", "faithful", "--precision", "int8", "--photos", "."],
        ["pull", "realesrgan-x4plus", "--out", "pulled"],
    ]
    code = WITHOUT.format(missing={"torch"}, commands=commands)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.splitlines()) == {'Error: upres models needs torch: pip install "upres[worker]"'}
    assert os.listdir(tmp_path) == ["mine.pth"]
