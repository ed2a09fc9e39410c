"""The last release, installed beside this one: the latest tag of git, and before the first tag a commit."""

import functools
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.paths import ROOT

BEFORE_THE_FIRST_TAG = "6eb0e50"
"""The commit that counts as the last release while there is no tag."""


@functools.cache
def name() -> str:
    """The tag or commit."""
    tag = subprocess.run(["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True)
    return tag.stdout.strip() or BEFORE_THE_FIRST_TAG


@functools.cache
def folder() -> Path:
    """A folder with the package `upres` of the last release, for PYTHONPATH. Its wheel is built at the first use."""
    commit = subprocess.check_output(["git", "rev-parse", f"{name()}^{{commit}}"], cwd=ROOT, text=True).strip()
    made = ROOT / ".venv" / "releases" / commit
    if not (made / "upres").exists():
        source = made / "source"
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.check_output(["git", "archive", "--format=tar", commit], cwd=ROOT)
        subprocess.run(["tar", "--extract", "--directory", source], input=archive, check=True)
        build = "from setuptools import build_meta; build_meta.build_wheel('..')"
        subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
        [wheel] = made.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(made)
    return made
