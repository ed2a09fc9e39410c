"""The Makefile sets up the virtual environment when it is needed, and says what is missing in one sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a space in its name, with the Makefile and a virtual environment that was made for the folder."""
    folder = tmp_path / "my upres"
    (folder / ".venv").mkdir(parents=True)
    (folder / "infra").mkdir()
    for name in ("Makefile", "pyproject.toml", "infra/check_python.py"):
        shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv/bin").symlink_to(Path(sys.prefix) / "bin")
    (folder / ".venv/installed").write_text(f"{VERSION} {folder}\n")
    return folder


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env={**inherited, **environment}, capture_output=True, text=True
    )


def test_an_environment_that_is_there_is_used(checkout: Path) -> None:
    assert "-m venv" not in make(checkout, "-n", "demo").stdout
    assert "-m venv" not in make(checkout, "-n", "demo", f"PYTHON={sys.executable}").stdout


def test_a_moved_checkout_gets_a_new_environment(checkout: Path) -> None:
    moved = checkout.rename(checkout.parent / "moved")
    assert "-m venv --clear .venv" in make(moved, "-n", "demo").stdout


def test_another_python_that_is_asked_for_gets_a_new_environment(checkout: Path) -> None:
    other = checkout / "other-python"
    other.write_text("#!/bin/sh\necho 3.99\n")
    other.chmod(0o755)
    assert "other-python -m venv --clear .venv" in make(checkout, "-n", "demo", "PYTHON=./other-python").stdout


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv/bin").unlink()
    assert "-m venv --clear .venv" in make(checkout, "-n", "demo").stdout


def test_a_changed_list_of_packages_installs_without_deleting_the_environment(checkout: Path) -> None:
    os.utime(checkout / ".venv/installed", (0, 0))
    assert "-m venv  .venv" in make(checkout, "-n", "demo").stdout


def test_a_python_that_does_not_exist_is_named(checkout: Path) -> None:
    ran = make(checkout, "demo", "PYTHON=python9")
    assert ran.returncode != 0
    assert "There is no python9: install Python 3.11 or newer" in ran.stdout


def test_a_python_without_the_module_venv_names_the_package(checkout: Path) -> None:
    (checkout / "ensurepip.py").write_text("raise ImportError")  # as on Debian without python3-venv
    (checkout / ".venv/installed").unlink()
    ran = make(checkout, "demo", f"PYTHON={sys.executable}", PYTHONPATH=str(checkout))
    assert ran.returncode != 0
    assert f"sudo apt-get install python{VERSION}-venv" in ran.stderr
    assert "Traceback" not in ran.stderr
