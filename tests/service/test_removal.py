"""Removing versions: nothing that is served, waited for or needed by others is removed unless it is forced."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from tests.support.leasing import submit, taken
from tests.support.pushing import small_version
from upres.core import keys, registry, registry_changes, removal, served_models
from upres.core.errors import ModelError, ModelNotFound
from upres.core.served_models import ModelRef, ServedModel
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.models.commands import models

pytestmark = pytest.mark.without_worker

Command = Callable[..., Result]


@pytest.fixture
def name(store: Store, tmp_path: Path) -> str:
    """A model with the versions 1 to 4; 4 is the newest, 1 is stable."""
    made = f"removed-{secrets.token_hex(4)}"
    for version in "1234":
        folder = small_version(tmp_path / version, made, version, created=f"2026-01-0{version}")
        registry_changes.push(store, folder)
    return made


@pytest.fixture
def command(local: Local, monkeypatch: pytest.MonkeyPatch) -> Command:
    for variable, value in local.environment.items():
        monkeypatch.setenv(variable, value)
    return lambda *arguments: CliRunner().invoke(models, [*map(str, arguments)], catch_exceptions=False)


def versions(store: Store, name: str) -> set[str]:
    """The versions in the index, which are those whose files are in the store."""
    entry = registry.index(store).models.get(name)
    listed = {one.version for one in entry.versions} if entry else set()
    objects = {key.split("/")[2] for key in store.listing(f"models/{name}/")} - {"labels.json"}
    assert listed == objects
    return listed


def test_a_version_is_removed_with_all_its_files(store: Store, name: str, command: Command) -> None:
    assert command("remove", name, "2").output == f"{name} 2 is removed\n"
    assert versions(store, name) == {"1", "3", "4"}
    with pytest.raises(ModelNotFound):
        registry.manifest(store, name, "2")
    again = command("remove", name, "2")
    assert (again.exit_code, "has no version '2'" in again.output) == (1, True)


def test_a_version_that_a_label_points_to_is_removed_only_with_force(store: Store, name: str, command: Command) -> None:
    registry_changes.relabel(store, name, {"best": "2", "canary": "3"})
    for version, label in (("1", "stable"), ("2", "best"), ("3", "canary")):
        refused = command("remove", name, version)
        assert (refused.exit_code, f"the label {label} points to it" in refused.output) == (1, True)
    assert command("remove", name, "2", "--force").exit_code == 0
    assert registry.labels(store, name).labels == {"stable": "1", "canary": "3"}
    stable = command("remove", name, "1", "--force")
    assert (stable.exit_code, "make another one stable first" in stable.output) == (1, True)
    assert versions(store, name) == {"1", "3", "4"}


def test_the_last_version_takes_the_model_along(store: Store, name: str, command: Command) -> None:
    for version in "234":
        assert command("remove", name, version).exit_code == 0
    assert command("remove", name, "1").exit_code == 1
    assert command("remove", name, "1", "--force").exit_code == 0
    assert name not in registry.index(store).models
    assert list(store.listing(f"models/{name}/")) == []


def test_a_version_that_workers_serve_is_removed_only_with_force(
    store: Store, redis: Redis, name: str, command: Command
) -> None:
    ref = ModelRef(version="2", digest="d", factors=(2,))
    served_models.publish(redis, name, ServedModel(labels={"stable": ref}))
    refused = command("remove", name, "2")
    assert (refused.exit_code, "workers serve it as stable" in refused.output) == (1, True)
    assert command("remove", name, "2", "--force").exit_code == 0
    redis.delete(keys.served_model(name))


@pytest.mark.parametrize("running", [False, True])
def test_a_version_that_a_job_waits_for_is_removed_only_with_force(
    redis: Redis, name: str, command: Command, running: bool
) -> None:
    submit(redis, model=name, model_version="2")
    first = {"first_model": name, "first_model_version": "3", "first_model_digest": "d"}
    submit(redis, **first)
    if running:
        taken(redis)
        taken(redis)
    for version in "23":
        refused = command("remove", name, version)
        assert (refused.exit_code, "a job that has not ended needs it" in refused.output) == (1, True)
        assert command("remove", name, version, "--force").exit_code == 0
    redis.delete(keys.WAITING)


def test_the_base_of_another_version_is_not_removed(store: Store, name: str, command: Command, tmp_path: Path) -> None:
    base = small_version(tmp_path / name / "2", name, "2", created="2026-01-02")
    mix = {"model": name, "version": "2", "digest": registry.read_folder(base)[1], "strength": 0.5}
    registry_changes.push(store, small_version(tmp_path / "mixed" / "1", f"{name}-m", schema_version=4, mix=mix))
    refused = command("remove", name, "2")
    assert (refused.exit_code, f"{name}-m 1 is mixed with it" in refused.output) == (1, True)


def test_rollback_does_not_go_back_to_a_removed_version(store: Store, name: str, command: Command) -> None:
    for version in "23":
        registry_changes.relabel(store, name, {"stable": version})
    assert command("remove", name, "2").exit_code == 0
    assert registry_changes.rollback(store, name).labels == {"stable": "1"}


def test_what_a_push_that_broke_off_has_left_is_removed(
    store: Store, name: str, command: Command, tmp_path: Path
) -> None:
    store.put(keys.model(name, "5", "manifest.sha256"), b"d" * 64)
    store.put(keys.model(name, "5", "small-x2.safetensors"), b"of another folder")
    folder = small_version(tmp_path / "5", name, "5")
    with pytest.raises(ModelError, match=f"upres models remove {name} 5"):
        registry_changes.push(store, folder)
    assert command("remove", name, "5").exit_code == 0
    registry_changes.push(store, folder)
    assert "5" in versions(store, name)


class Interrupted(Exception):
    """The removal ends here, as when its process is killed."""


def test_a_removal_that_dies_at_any_write_is_repeated(
    store: Store, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 0

    def dying(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Interrupted
            return method(*arguments)

        return call

    for writes in range(10):
        with monkeypatch.context() as patch:
            left = writes
            for method in ("put", "delete"):
                patch.setattr(Store, method, dying(getattr(Store, method)))
            try:
                removal.remove(store, name, "2")
                break
            except Interrupted:
                pass
        listed = {one.version for one in registry.index(store).models[name].versions}
        if "2" in listed:
            registry.fetch(store, name, "2", tmp_path / f"whole-{writes}")
        removal.remove(store, name, "2") if any(store.listing(f"models/{name}/2/")) else None
        assert versions(store, name) == {"1", "3", "4"}
        registry_changes.push(store, tmp_path / "2")
    assert writes > 3


def test_a_label_that_is_set_while_its_version_is_removed_is_refused_or_keeps_the_version(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who removes has looked at the labels, and the one who sets the label has looked at the manifest."""
    delete = Store.delete

    def labelled_before(self: Store, objects: list[str]) -> None:
        monkeypatch.setattr(Store, "delete", delete)
        registry_changes.relabel(self, name, {"best": "2"})
        delete(self, objects)

    monkeypatch.setattr(Store, "delete", labelled_before)
    with pytest.raises(ModelError, match="the label best points to it"):
        removal.remove(store, name, "2")
    assert registry.manifest(store, name, "2")[0].version == "2"
    assert registry.labels(store, name).labels == {"stable": "1", "best": "2"}
    assert versions(store, name) == {"1", "2", "3", "4"}
    found = registry.manifest

    def removed_after(*arguments: str) -> object:
        monkeypatch.setattr(registry_changes, "manifest", found)
        answer = found(store, name, "3")
        removal.remove(store, name, "3")
        return answer

    monkeypatch.setattr(registry_changes, "manifest", removed_after)
    with pytest.raises(ModelNotFound, match="no version '3'"):
        registry_changes.relabel(store, name, {"best": "3"})
    assert registry.labels(store, name).labels == {"stable": "1", "best": "2"}


def test_a_label_whose_versions_were_both_removed_is_taken_back_once(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry_changes.relabel(store, name, {"best": "2"})
    found = registry.manifest

    def removed_after(*arguments: str) -> object:
        monkeypatch.setattr(registry_changes, "manifest", found)
        answer = found(store, name, "3")
        removal.remove(store, name, "3")
        store.delete([keys.model(name, "2", "manifest.json")])  # by another tool
        return answer

    monkeypatch.setattr(registry_changes, "manifest", removed_after)
    with pytest.raises(ModelNotFound, match="no version '3'"):
        registry_changes.relabel(store, name, {"best": "3"})
    assert registry.labels(store, name).labels == {"stable": "1", "best": "2"}


def test_a_version_that_is_pushed_while_it_is_removed_is_there_as_a_whole_or_not_at_all(
    store: Store, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Store.put

    def removed_before_the_manifest(self: Store, key: str, data: bytes, content_type: str = "") -> str:
        if key == keys.model(name, "5", "manifest.json"):
            monkeypatch.setattr(Store, "put", put)
            removal.remove(self, name, "5")
        return put(self, key, data, content_type or "application/octet-stream")

    monkeypatch.setattr(Store, "put", removed_before_the_manifest)
    with pytest.raises(ModelError, match="is being removed"):
        registry_changes.push(store, small_version(tmp_path / "5", name, "5"))
    assert "5" not in versions(store, name)


def test_prune_keeps_the_newest_versions_and_those_that_are_needed(
    store: Store, redis: Redis, name: str, command: Command
) -> None:
    submit(redis, model=name, model_version="2")
    planned = command("prune", name, "--keep", "1", "--dry-run")
    assert planned.output.splitlines() == [
        f"{name} 1 stays: the label stable points to it",
        f"{name} 2 stays: a job that has not ended needs it",
        f"{name} 3 would be removed",
    ]
    assert versions(store, name) == {"1", "2", "3", "4"}
    assert f"{name} 3 is removed" in command("prune", name, "--keep", "1").output
    assert versions(store, name) == {"1", "2", "4"}
    assert command("prune", name, "--keep", "3").output == f"{name}: there is nothing to remove\n"
    redis.delete(keys.WAITING)


def test_without_redis_nothing_is_removed_unless_it_is_forced(
    store: Store, name: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPRES_REDIS_URL", "redis://127.0.0.1:9/0")
    for arguments in (("remove", name, "2"), ("prune", name, "--keep", "1")):
        refused = command(*arguments)
        assert (refused.exit_code, "not known whether workers or jobs need" in refused.output) == (1, True)
    assert versions(store, name) == {"1", "2", "3", "4"}
    assert command("remove", name, "2", "--force").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [("remove", "../x", "1"), ("remove", "faithful", "../1"), ("prune", "A", "--keep", "1")]
)
def test_wrong_names_are_one_sentence(command: Command, arguments: tuple[str, ...]) -> None:
    refused = command(*arguments)
    assert (refused.exit_code, "is no name of a" in refused.output) == (1, True)
