"""Smaller versions: none is written, or becomes stable, whose loss was not measured."""

import math
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from tests.support.paths import SAMPLES
from tests.support.pushing import small_version
from upres.core import registry, registry_changes
from upres.core.errors import ModelError
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.models import build_commands, variants
from upres.models.photos import Photos

pytestmark = pytest.mark.without_worker


def photo(path: Path, width: int, height: int) -> Path:
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    return path


def test_photos_that_are_too_small_are_left_out(tmp_path: Path) -> None:
    for number, size in enumerate([(1, 1), (7, 500), (63, 63), (64, 65), (400, 390)]):
        photo(tmp_path / f"{number}.png", *size)
    assert [one.shape for one in variants.read_photos(tmp_path)] == [(64, 64, 3), (384, 384, 3)]


def test_at_most_max_photos_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "MAX_PHOTOS", 2)
    for number in range(4):
        photo(tmp_path / f"{number}.png", 64, 64)
    assert len(list(variants.read_photos(tmp_path))) == 2


def test_a_folder_with_only_tiny_photos_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there are no photos"):
        list(variants.read_photos(tmp_path))
    photo(tmp_path / "tiny.png", 9, 9)
    with pytest.raises(ModelError, match="64×64 pixels or more"):
        list(variants.read_photos(tmp_path))


@pytest.mark.parametrize("data", [b"", b"no image", (SAMPLES / "chelsea.png").read_bytes()[:9000]])
def test_a_file_that_is_no_photo_is_named(tmp_path: Path, data: bytes) -> None:
    photo(tmp_path / "a.png", 64, 64)
    (tmp_path / "b.jpg").write_bytes(data)
    with pytest.raises(ModelError, match=r"b\.jpg is no photo that can be read"):
        list(variants.read_photos(tmp_path))
    with pytest.raises(ModelError, match=r"b\.jpg is no photo that can be read"):
        Photos.load(tmp_path, torch.device("cpu"))


def variant(local: Local, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Result:
    """Run `upres models variant` in a folder, with the photos in its folder `photos`."""
    monkeypatch.chdir(folder)
    for name, value in local.environment.items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(build_commands.variant, ["faithful", "--precision", "float16", "--photos", "photos"])


def test_a_variant_that_was_not_measured_is_not_written(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "a.png", 64, 64)
    written: list[Path] = []

    def fail(model: object, made: Any, pictures: object) -> None:
        written.extend(made.files.values())
        raise RuntimeError("the measurement broke off")

    monkeypatch.setattr(variants, "compare", fail)
    assert variant(local, monkeypatch, tmp_path).exit_code == 1
    assert written
    (tmp_path / "photos" / "b.png").write_bytes(b"no image")
    refused = variant(local, monkeypatch, tmp_path)
    assert (refused.exit_code, "b.png is no photo" in refused.output) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("version", "network"),
    [
        ("1-float16", {}),
        ("1-int8", {}),
        ("2", {"precisions": ["int8"]}),
        ("2", {"quality": {"psnr_loss_db": math.nan}}),
    ],
)
def test_a_version_whose_loss_was_not_measured_cannot_become_stable(
    store: Store, tmp_path: Path, version: str, network: dict[str, Any]
) -> None:
    name = f"smaller-{secrets.token_hex(4)}"
    folder = small_version(tmp_path / "1", name)
    networks = [{**one.model_dump(), **network} for one in registry.read_folder(folder)[0].networks]
    unmeasured = small_version(tmp_path / "2", name, version, networks=networks)
    with pytest.raises(ModelError, match="cannot become stable"):
        registry_changes.push(store, unmeasured)  # it would be the first version, and so stable
    assert not registry_changes.exists(store, name, version)
    registry_changes.push(store, folder)
    registry_changes.push(store, unmeasured)
    registry_changes.relabel(store, name, {"canary": version})
    attempts: list[Callable[[], object]] = [
        lambda: registry_changes.relabel(store, name, {"stable": version}),
        lambda: registry_changes.promote(store, name),
        lambda: registry_changes.promote(store, name, expected=version),
    ]
    for make_stable in attempts:
        with pytest.raises(ModelError, match="cannot become stable"):
            make_stable()
    assert registry.labels(store, name).labels["stable"] == "1"
