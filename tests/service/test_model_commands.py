"""Tests of the command `upres models`: its output, its effects on the registry, and its error messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pushing import Pushed
from upres.core import keys, registry, registry_changes
from upres.core.queue import connect
from upres.core.verdicts import Verdict
from upres.embedded.stack import Local

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def model(local: Local, tmp_path: Path) -> Pushed:
    (tmp_path / "versions").mkdir()
    pushed = Pushed(local.store, "commanded", tmp_path / "versions")
    pushed.fields["networks"], pushed.fields["golden"] = pushed.fields["networks"][1:], []
    pushed.push("1")
    pushed.push("2")
    registry_changes.relabel(local.store, "commanded", {"stable": "1", "canary": None})
    return pushed


def upres(local: Local, folder: Path, *arguments: str) -> Done:
    command = [str(Path(sys.executable).parent / "upres"), "models", *arguments]
    environment = {**os.environ, **local.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, cwd=folder)


def test_label_command_changes_all_given_labels_or_none(local: Local, model: Pushed, tmp_path: Path) -> None:
    for wrong in (
        ["canary=2", "stable=9"],
        ["canary=2", "--rule", "often"],
        ["canary=2", "--canary-percent", "500"],
        ["canary=2", "Best=1"],
        ["stable="],
        [],
    ):
        done = upres(local, tmp_path, "label", "commanded", *wrong)
        assert done.returncode in (1, 2), wrong
        assert "Traceback" not in done.stderr
        assert registry.labels(local.store, "commanded").labels == {"stable": "1"}
    done = upres(local, tmp_path, "label", "commanded", "canary=2", "--canary-percent", "7", "--rule", "10:1")
    assert done.stdout == "commanded: stable=1, canary=2\n"
    assert (
        "7 % of the jobs; stable after 10, unless more than 1 % fail"
        in upres(local, tmp_path, "show", "commanded").stdout
    )
    upres(local, tmp_path, "label", "commanded", "--rule", "off", "--canary-percent", "8")
    now = registry.labels(local.store, "commanded")
    assert (now.rule, now.canary_percent, now.labels["canary"]) == (None, 8, "2")


def test_verify_command_detects_a_damaged_file_in_the_registry(local: Local, model: Pushed, tmp_path: Path) -> None:
    good = upres(local, tmp_path, "verify", "commanded")
    assert (good.returncode, good.stdout.count("are correct")) == (0, 2)
    model.put(model.fields["networks"][0]["file"], b"damaged", "2")
    bad = upres(local, tmp_path, "verify", "commanded")
    assert bad.returncode == 1
    assert "commanded 1: 2 files" in bad.stdout
    assert "SHA-256" in bad.stdout
    assert upres(local, tmp_path, "verify", "typo").returncode == 1


def test_pull_command_downloads_a_version_into_a_new_folder(local: Local, model: Pushed, tmp_path: Path) -> None:
    assert upres(local, tmp_path, "pull", "commanded", "--version", "1").returncode == 0
    assert registry.read_folder(tmp_path / "commanded-1")[0].version == "1"
    again = upres(local, tmp_path, "pull", "commanded", "--version", "1")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    unknown = upres(local, tmp_path, "pull", "nowhere")
    assert (unknown.returncode, "There is no model 'nowhere'" in unknown.stderr) == (1, True)


def test_an_unreachable_store_is_reported_in_one_line(local: Local, tmp_path: Path) -> None:
    local_away = {**local.environment, "UPRES_S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    command = [str(Path(sys.executable).parent / "upres"), "models"]
    done = subprocess.run(command, env={**os.environ, **local_away}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "store_unavailable" in done.stderr


def test_push_with_keep_warns_where_the_registry_has_the_version_with_other_contents(
    local: Local, model: Pushed, tmp_path: Path
) -> None:
    """A release whose bundled version differs from the bucket's may not keep everything from starting."""
    other = model.folder / "1"
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": "1"', '"version": "1", "origin": "another"'))
    before = registry.manifest(local.store, "commanded", "1")
    refused = upres(local, tmp_path, "push", str(other))
    kept = upres(local, tmp_path, "push", "--keep", str(other))
    assert (refused.returncode, kept.returncode, kept.stdout) == (1, 0, "")
    assert "with other contents" in refused.stderr
    assert "warning: Model 'commanded' has a version '1' with other contents" in kept.stderr
    assert "what the registry has is served" in kept.stderr
    assert registry.manifest(local.store, "commanded", "1") == before


def test_push_with_keep_fails_where_the_registry_has_nothing_to_serve(local: Local, model: Pushed) -> None:
    folder = model.version("bad", name="never-pushed", golden=[])
    next(folder.glob("*.safetensors")).write_bytes(b"damaged")
    assert upres(local, folder, "push", "--keep", str(folder)).returncode == 1


def test_show_says_why_workers_refuse_a_version_though_none_of_the_model_is_served(
    local: Local, model: Pushed, tmp_path: Path
) -> None:
    digest = registry.manifest(local.store, "commanded", "1")[1]
    verdict = Verdict(well=False, version="1", kind="a CPU", reason="its process was ended by SIGSEGV")
    with connect(local.settings) as redis:
        redis.hset(keys.verdicts("commanded", digest), "a CPU", verdict.model_dump_json())
        try:
            shown = upres(local, tmp_path, "show", "commanded").stdout
            again = [upres(local, tmp_path, "retry", "commanded", "1").stdout for _ in range(2)]
            assert not redis.exists(keys.verdicts("commanded", digest))
        finally:
            redis.delete(keys.verdicts("commanded", digest))
    assert "refused  1: its process was ended by SIGSEGV (a CPU)\n" in shown
    assert again == ["commanded 1 is tried again\n", "commanded 1 was not refused; nothing to do\n"]
