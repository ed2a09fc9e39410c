"""Versions in the registry: pushing again puts them right, and no name means two things or the wrong one."""

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pushing import small_version
from upres.core import guarded_writes, keys, registry, registry_changes, registry_index, served_models
from upres.core.errors import ModelError, ModelNotFound, ModelTooNew
from upres.core.storage import Store

pytestmark = pytest.mark.without_worker
WEIGHTS = "small-x2.safetensors"


@pytest.fixture
def name() -> str:
    return f"named-{secrets.token_hex(4)}"


def by_hand(store: Store, key: str, data: bytes | None) -> None:
    """Change an object as an operator does with another tool; None deletes it."""
    if data is None:
        store.delete([key])
    else:
        store.put(key, data)


@pytest.mark.parametrize("claimed", [True, False])  # a version that an older release pushed has no claim
@pytest.mark.parametrize("damage", [None, b"", b"damaged", b'{"schema_version": 9}'])
@pytest.mark.parametrize("file", [WEIGHTS, "manifest.json"])
def test_pushing_again_puts_back_what_is_missing_or_damaged(
    store: Store, name: str, tmp_path: Path, file: str, damage: bytes | None, claimed: bool
) -> None:
    folder = small_version(tmp_path / "1", name)
    registry_changes.push(store, folder)
    if not claimed:
        by_hand(store, keys.model(name, "1", "manifest.sha256"), None)
    by_hand(store, keys.model(name, "1", file), damage)
    with pytest.raises(ModelError, match="with other contents"):
        registry_changes.push(store, small_version(tmp_path / "other", name, number=1))
    registry_changes.push(store, folder)
    registry.fetch(store, name, "1", tmp_path / "fetched")
    assert (tmp_path / "fetched" / file).read_bytes() == (folder / file).read_bytes()


def test_pushing_again_puts_back_labels_and_index(store: Store, name: str, tmp_path: Path) -> None:
    folder = small_version(tmp_path / "1", name)
    registry_changes.push(store, folder)
    for document in (keys.labels(name), keys.MODEL_INDEX):
        by_hand(store, document, None)
    registry_changes.push(store, folder)
    before = registry.index(store).models
    assert before[name].labels.labels == {"stable": "1"}
    by_hand(store, keys.MODEL_INDEX, b"{ cut off")
    registry_changes.push(store, folder)
    assert registry.index(store).models[name] == before[name]
    assert "faithful" in registry.index(store).models


def test_pushing_a_mixed_version_again_puts_back_its_base(store: Store, name: str, tmp_path: Path) -> None:
    base = small_version(tmp_path / name / "1", name)
    mix = {"model": name, "version": "1", "digest": registry.read_folder(base)[1], "strength": 0.5}
    mixed = small_version(tmp_path / f"{name}-mixed" / "1", f"{name}-mixed", schema_version=4, mix=mix)
    registry_changes.push(store, mixed)
    by_hand(store, keys.model(name, "1", WEIGHTS), b"damaged")
    by_hand(store, keys.model(name, "1", "manifest.json"), b"damaged")
    registry_changes.push(store, mixed)
    registry.fetch(store, f"{name}-mixed", "1", tmp_path / "fetched")


@pytest.mark.parametrize("label", ["v3", "v3-int8", "v10"])
def test_a_label_that_looks_like_a_version_is_refused(store: Store, name: str, tmp_path: Path, label: str) -> None:
    registry_changes.push(store, small_version(tmp_path / "1", name))
    with pytest.raises(ModelError, match="looks like a version"):
        registry_changes.relabel(store, name, {label: "1"})
    assert registry.labels(store, name).labels == {"stable": "1"}


def test_a_label_with_the_name_of_a_version_is_refused_and_the_reverse(store: Store, name: str, tmp_path: Path) -> None:
    for version in ("1", "beta"):
        registry_changes.push(store, small_version(tmp_path / version, name, version))
    with pytest.raises(ModelError, match="has a version 'beta'"):
        registry_changes.relabel(store, name, {"beta": "1"})
    registry_changes.relabel(store, name, {"best": "1"})
    with pytest.raises(ModelError, match="has a label 'best', which means version '1'"):
        registry_changes.push(store, small_version(tmp_path / "best", name, "best"))
    assert not registry_changes.exists(store, name, "best")


@pytest.mark.parametrize("version", ["stable", "canary", "labels.json"])
def test_a_version_with_a_name_that_has_a_meaning_is_refused(
    store: Store, name: str, tmp_path: Path, version: str
) -> None:
    with pytest.raises(ModelError, match="No version can be called"):
        registry_changes.push(store, small_version(tmp_path / "1", name, version))
    with pytest.raises(ModelError, match="No model can be called"):
        registry_changes.push(store, small_version(tmp_path / "2", "index.json"))


def test_a_label_of_an_older_release_that_looks_like_a_version_can_be_removed(
    store: Store, name: str, tmp_path: Path
) -> None:
    registry_changes.push(store, small_version(tmp_path / "1", name))
    store.put(keys.labels(name), json.dumps({"labels": {"stable": "1", "v3": "1"}}).encode())
    assert registry_changes.relabel(store, name, {"v3": None}).labels == {"stable": "1"}


WRONG = ["../x", "a/b", "", ".", "Große", "x" * 65, "a\n", "-a"]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_name_that_cannot_be_one_becomes_part_of_no_key(store: Store, wrong: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: registry.labels(store, wrong),
        lambda: registry.manifest(store, wrong, "1"),
        lambda: registry.manifest(store, "faithful", wrong),
        lambda: registry_changes.relabel(store, wrong, {"best": "1"}),
        lambda: registry_changes.relabel(store, "faithful", {"best": wrong}),
        lambda: registry_changes.promote(store, wrong),
        lambda: registry_changes.rollback(store, wrong),
        lambda: keys.model(wrong, "1", "manifest.json"),
        lambda: keys.labels(wrong),
    ]
    for call in calls:
        with pytest.raises(ModelNotFound, match="is no name of a"):
            call()


def test_a_folder_that_was_copied_by_hand_is_not_served_under_its_new_name(
    store: Store, name: str, tmp_path: Path
) -> None:
    folder = small_version(tmp_path / "1", name)
    registry_changes.push(store, folder)
    for to in ((name, "2"), (f"{name}-copy", "1")):
        for file in folder.iterdir():
            store.put(keys.model(*to, file.name), file.read_bytes())
        for read in (registry.manifest, served_models.read):
            with pytest.raises(ModelError, match=f"is that of {name} 1: the folder was copied"):
                read(store, *to)
    with pytest.raises(ModelError, match="was copied"):
        registry_changes.relabel(store, name, {"best": "2"})
    store.put(keys.labels(f"{name}-copy"), json.dumps({"labels": {"stable": "1"}}).encode())
    found = registry_index.reindex(store).models
    assert [one.version for one in found[name].versions] == ["1"]
    assert found[f"{name}-copy"].versions == ()


def test_what_a_newer_release_wrote_into_the_index_stays_there(store: Store, name: str, tmp_path: Path) -> None:
    """Entries of other models, even those that this release cannot read, and fields that it does not know."""
    registry_changes.push(store, small_version(tmp_path / "1", name))
    stored = json.loads(store.get(keys.MODEL_INDEX))
    strange = {"name": f"{name}-strange", "heads": [{"labels": 5}]}
    known = {**stored["models"][name], "name": f"{name}-known", "price": 3}
    stored["models"] |= {strange["name"]: strange, known["name"]: known}
    store.put(keys.MODEL_INDEX, json.dumps(stored).encode())
    listed = registry.index(store).models
    assert (known["name"] in listed, strange["name"] in listed) == (True, False)
    registry_changes.relabel(store, name, {"blue": "1"})
    now = json.loads(store.get(keys.MODEL_INDEX))["models"]
    assert (now[strange["name"]], now[known["name"]]) == (strange, known)
    assert now[name]["labels"]["labels"] == {"stable": "1", "blue": "1"}
    registry_index.reindex(store)
    assert not {strange["name"], known["name"]} & json.loads(store.get(keys.MODEL_INDEX))["models"].keys()


def test_fields_that_a_newer_release_gave_index_and_labels_are_kept_by_every_change(
    store: Store, name: str, tmp_path: Path
) -> None:
    for version in "12":
        registry_changes.push(store, small_version(tmp_path / version, name, version))
    stored = json.loads(store.get(keys.MODEL_INDEX))
    stored["newer"] = stored["models"][name]["newer"] = stored["models"][name]["versions"][0]["newer"] = 1
    store.put(keys.MODEL_INDEX, json.dumps(stored).encode())
    store.put(keys.labels(name), b'{"labels": {"stable": "1", "canary": "2"}, "canary_percent": 9, "newer": 1}')
    registry_changes.promote(store, name)
    registry_changes.rollback(store, name)
    registry_changes.relabel(store, name, {"blue": "2"})
    now = json.loads(store.get(keys.labels(name)))
    assert now == {"labels": {"stable": "1", "blue": "2"}, "newer": 1}
    now = json.loads(store.get(keys.MODEL_INDEX))
    entry = now["models"][name]
    assert (now["newer"], entry["newer"], entry["versions"][0]["newer"]) == (1, 1, 1)
    registry_index.reindex(store)
    assert json.loads(store.get(keys.MODEL_INDEX))["newer"] == 1


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"models": {"x": {"a": "\\ud800"}}}', b'{"models": 5}'])
def test_an_index_of_any_content_is_rebuilt(store: Store, name: str, tmp_path: Path, content: bytes) -> None:
    registry_changes.push(store, small_version(tmp_path / "1", name))
    store.put(keys.MODEL_INDEX, content)
    registry_changes.relabel(store, name, {"blue": "1"})
    assert registry.index(store).models[name].labels.labels == {"stable": "1", "blue": "1"}


def test_a_folder_that_changes_while_it_is_pushed_is_not_pushed(
    store: Store, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_version(tmp_path / "1", name)
    create = guarded_writes.create

    def changed_meanwhile(*arguments: Any) -> bytes:
        (folder / WEIGHTS).write_bytes(b"of a training that goes on")
        return create(*arguments)

    monkeypatch.setattr(guarded_writes, "create", changed_meanwhile)
    with pytest.raises(ModelError, match="was changed while it was pushed"):
        registry_changes.push(store, folder)
    assert not registry_changes.exists(store, name, "1")


def test_the_index_has_no_default_values_which_older_releases_may_refuse(
    store: Store, name: str, tmp_path: Path
) -> None:
    registry_changes.push(store, small_version(tmp_path / "1", name))
    assert json.loads(store.get(keys.MODEL_INDEX))["models"][name]["labels"] == {"labels": {"stable": "1"}}


@pytest.mark.parametrize("content", [b'{"labels": {"stab', b"[]", b'{"labels": {}}'])
def test_labels_that_cannot_be_read_are_made_anew_by_the_label_command(
    store: Store, name: str, tmp_path: Path, content: bytes
) -> None:
    registry_changes.push(store, small_version(tmp_path / "1", name))
    store.put(keys.labels(name), content)
    with pytest.raises(ModelError, match=f"cannot be read.*`upres models label {name} stable=VERSION` makes them anew"):
        registry_changes.relabel(store, name, {"blue": "1"})
    assert name in registry_index.reindex(store).models, "a list without it would hide it"
    assert registry_changes.relabel(store, name, {"stable": "1"}).labels == {"stable": "1"}
    assert registry.labels(store, name).labels == registry.index(store).models[name].labels.labels == {"stable": "1"}


def test_labels_of_a_newer_release_that_cannot_be_read_are_not_made_anew(
    store: Store, name: str, tmp_path: Path
) -> None:
    registry_changes.push(store, small_version(tmp_path / "1", name))
    newer = b'{"schema_version": 2, "labels": [["stable", "1"]]}'
    store.put(keys.labels(name), newer)
    with pytest.raises(ModelTooNew, match=r"of a newer upres \(schema 2, here 1\)"):
        registry_changes.relabel(store, name, {"stable": "1"})
    assert store.get(keys.labels(name)) == newer
