"""The model registry in a real object store: push, pull, labels and index. Files with a wrong digest are refused."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.support.pushing import FOLDER, Pushed
from upres.core import keys, registry, registry_changes, registry_index
from upres.core.errors import ModelError, ModelNotFound
from upres.core.manifest import Labels, Rule
from upres.core.storage import Store
from upres.worker.model import open_folder, pull


@pytest.fixture
def pushed(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    """A model under a random name; the test pushes its versions to the store."""
    return Pushed(store, secrets.token_hex(8), tmp_path_factory.mktemp("versions"))


def test_pulled_files_are_cached_under_their_digests(pushed: Pushed, tmp_path: Path) -> None:
    pushed.push()
    model = pushed.pull(tmp_path)
    path = model.files["edsr-x4.safetensors"]
    assert path.read_bytes() == (FOLDER / "edsr-x4.safetensors").read_bytes()
    assert path.stem == model.manifest.networks[0].sha256
    pushed.put("edsr-x4.safetensors", b"changed in the store, but the cache has what the manifest names")
    assert pushed.pull(tmp_path) == model


def test_a_damaged_cached_file_is_downloaded_again(pushed: Pushed, tmp_path: Path) -> None:
    pushed.push()
    path = pushed.pull(tmp_path).files["edsr-x2.safetensors"]
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    assert pushed.pull(tmp_path).files["edsr-x2.safetensors"].read_bytes() == good


def test_a_file_with_a_wrong_digest_is_refused_and_not_cached(pushed: Pushed, tmp_path: Path) -> None:
    pushed.push()
    pushed.put("edsr-x2.safetensors", b"something else")
    with pytest.raises(ModelError, match="SHA-256"):
        pushed.pull(tmp_path)
    assert not list(tmp_path.rglob(f"{pushed.fields['networks'][1]['sha256']}*"))


def test_pull_refuses_a_manifest_with_another_digest(pushed: Pushed, tmp_path: Path) -> None:
    pushed.push()
    digest = pushed.pull(tmp_path).digest
    pushed.put("manifest.json", json.dumps(pushed.fields | {"description": "another"}).encode())
    with pytest.raises(ModelError, match="changed in the store"):
        pull(pushed.store, pushed.name, "1", tmp_path, digest)


def test_an_unknown_model_raises_model_not_found(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        pull(store, "nowhere", "1", tmp_path)
    with pytest.raises(ModelNotFound, match="upres models list"):
        registry.labels(store, "nowhere")


def test_the_error_names_a_missing_network_file(pushed: Pushed, tmp_path: Path) -> None:
    pushed.push()
    pushed.store.delete([keys.model(pushed.name, "1", "edsr-x4.safetensors")])
    with pytest.raises(ModelError, match=r"lacks edsr-x4\.safetensors"):
        pushed.pull(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 5}, "a newer upres"),
        ({"schema_version": 1}, "an older upres"),
        ({"schema_version": "x"}, "cannot be read: schema_version"),
        ({"networks": []}, "cannot be read: networks"),
        ({"surprise": 1}, "of a newer upres: this release does not know surprise"),
        ({"networks": [{"file": "../../labels.safetensors"}]}, r"cannot be read: networks\.0\.file"),
        ({"name": "../x"}, "cannot be read: name"),
    ],
)
def test_an_invalid_manifest_is_refused(pushed: Pushed, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    pushed.put("manifest.json", json.dumps(pushed.fields | change).encode())
    with pytest.raises(ModelError, match=says):
        pushed.pull(tmp_path)
    pushed.put("manifest.json", b"{")
    with pytest.raises(ModelError, match="not valid JSON"):
        pushed.pull(tmp_path)


def test_a_folder_with_damaged_or_missing_files_is_refused(pushed: Pushed, tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert open_folder(tmp_path).digest == open_folder(FOLDER).digest
    (tmp_path / "edsr-x4.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="SHA-256"):
        open_folder(tmp_path)
    (tmp_path / "golden.png").unlink()
    (tmp_path / "edsr-x4.safetensors").write_bytes((FOLDER / "edsr-x4.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"golden\.png"):
        registry_changes.push(pushed.store, tmp_path)
    with pytest.raises(ModelError, match="No such file"):
        registry_changes.push(pushed.store, tmp_path / "nowhere")


def test_push_of_a_changed_version_is_refused(pushed: Pushed) -> None:
    folder = pushed.version()
    registry_changes.push(pushed.store, folder)
    registry_changes.push(pushed.store, folder)  # a second push of the same files changes nothing
    (folder / "manifest.json").write_text(json.dumps(pushed.fields | {"description": "another"}))
    with pytest.raises(ModelError, match="versions never change"):
        registry_changes.push(pushed.store, folder)


def test_relabel_promote_and_rollback_move_the_labels(pushed: Pushed) -> None:
    for version in "123":
        pushed.push(version)
    store, name = pushed.store, pushed.name
    assert registry.labels(store, name) == Labels(labels={"stable": "1"})  # the first pushed version becomes stable
    registry_changes.relabel(store, name, {"stable": "2"})
    registry_changes.relabel(store, name, {"canary": "3"})
    assert registry.labels(store, name).labels == {"stable": "2", "canary": "3"}
    registry_changes.promote(store, name)
    now = registry.labels(store, name)
    assert (now.labels, now.before) == ({"stable": "3"}, ("2", "1"))
    registry_changes.relabel(store, name, {"canary": "1"})
    assert registry_changes.rollback(store, name).labels == {"stable": "2"}
    assert registry_changes.rollback(store, name).labels == {"stable": "1"}
    with pytest.raises(ModelError, match="no stable version before"):
        registry_changes.rollback(store, name)
    with pytest.raises(ModelError, match="no canary"):
        registry_changes.promote(store, name)
    assert registry.index(store).models[name].labels == registry.labels(store, name)


def test_relabel_refuses_unknown_versions_and_invalid_labels(pushed: Pushed) -> None:
    pushed.push()
    with pytest.raises(ModelNotFound, match="no version '9'"):
        registry_changes.relabel(pushed.store, pushed.name, {"stable": "9"})
    with pytest.raises(ModelError, match="stable cannot be deleted"):
        registry_changes.relabel(pushed.store, pushed.name, {"stable": None})
    with pytest.raises(ModelError, match="labels are not valid"):
        registry_changes.relabel(pushed.store, pushed.name, {"No Label": "1"})
    assert registry.labels(pushed.store, pushed.name).labels == {"stable": "1"}


def test_the_index_lists_versions_and_reindex_restores_it(pushed: Pushed) -> None:
    pushed.push("1")
    pushed.push("2")
    entry = registry.index(pushed.store).models[pushed.name]
    assert [one.version for one in entry.versions] == ["1", "2"]
    assert entry.versions[0].factors == (2, 4, 8)
    rule = Rule(jobs=3, most_failed_percent=0)
    registry_changes.relabel(pushed.store, pushed.name, {"canary": "2"}, rule=rule)
    before = registry.index(pushed.store).models
    pushed.store.delete([keys.MODEL_INDEX])
    assert registry.index(pushed.store).models == {}
    again = registry_index.reindex(pushed.store).models
    assert again[pushed.name] == before[pushed.name]
    assert set(again["faithful"].versions) == set(before["faithful"].versions)
