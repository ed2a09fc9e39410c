"""Models come from the real object store, and nothing is used that does not have its digest."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.storage import Store
from tests.conftest import ROOT
from worker.registry import open_folder, pull

FOLDER = ROOT / "models" / "faithful" / "1"


class Registry:
    """A model in the store that a test may damage."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.manifest: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text()) | {"name": name}

    def push(self, *, weights: bool = True) -> None:
        self.store.put(f"models/{self.name}/labels.json", b'{"stable": "1"}')
        self.put("manifest.json", json.dumps(self.manifest).encode())
        for network in self.manifest["networks"] if weights else ():
            self.put(network["file"], (FOLDER / network["file"]).read_bytes())

    def put(self, file: str, data: bytes) -> None:
        self.store.put(f"models/{self.name}/1/{file}", data)


@pytest.fixture
def registry(store: Store, request: pytest.FixtureRequest) -> Registry:
    return Registry(store, request.node.name.replace("[", "-").replace("]", "")[:60])


def test_a_model_is_pulled_and_cached_under_its_digests(registry: Registry, tmp_path: Path) -> None:
    registry.push()
    model = pull(registry.store, registry.name, tmp_path)
    assert model.weights[4].read_bytes() == (FOLDER / "edsr-x4.safetensors").read_bytes()
    assert model.weights[4].stem == model.manifest.networks[0].sha256
    registry.put("edsr-x4.safetensors", b"changed in the store, but the cache has what the manifest names")
    assert pull(registry.store, registry.name, tmp_path) == model


def test_a_damaged_cache_is_mended(registry: Registry, tmp_path: Path) -> None:
    registry.push()
    path = pull(registry.store, registry.name, tmp_path).weights[2]
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    assert pull(registry.store, registry.name, tmp_path).weights[2].read_bytes() == good


def test_a_wrong_digest_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.push()
    registry.put("edsr-x2.safetensors", b"something else")
    with pytest.raises(ModelError, match="SHA-256"):
        pull(registry.store, registry.name, tmp_path)
    assert not list(tmp_path.rglob(f"{registry.manifest['networks'][1]['sha256']}*"))


def test_a_missing_model_is_said_to_be_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not in the store"):
        pull(store, "nowhere", tmp_path)


def test_a_missing_file_is_named(registry: Registry, tmp_path: Path) -> None:
    registry.push(weights=False)
    with pytest.raises(ModelError, match=r"lacks edsr-x4\.safetensors"):
        pull(registry.store, registry.name, tmp_path)


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"networks": []}, {"surprise": 1}])
def test_a_manifest_of_another_kind_is_refused(registry: Registry, tmp_path: Path, change: dict[str, Any]) -> None:
    registry.manifest |= change
    registry.push(weights=False)
    with pytest.raises(ModelError, match="cannot read"):
        pull(registry.store, registry.name, tmp_path)


def test_a_file_name_cannot_leave_its_folder(registry: Registry, tmp_path: Path) -> None:
    registry.manifest["networks"][0]["file"] = "../../labels.safetensors"
    registry.push(weights=False)
    with pytest.raises(ModelError, match="cannot read"):
        pull(registry.store, registry.name, tmp_path)


def test_a_folder_is_checked_like_the_store(tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert open_folder(tmp_path).digest == open_folder(FOLDER).digest
    (tmp_path / "edsr-x4.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="SHA-256"):
        open_folder(tmp_path)
