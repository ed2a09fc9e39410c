"""A bundled version never changes once it has landed: buckets of running systems have it, and refuse other contents."""

import hashlib

import pytest

from upres.core import registry
from upres.models import bundled

LANDED = {
    "faithful/1": "48ef456a2328c74ee68d2c66579c53b7318ba04df5fdac69974ba74417220518",
    "photo/1": "d697ee9d293d63f00c44c6a88aa812bdbfdd0bdf69ac093424bbda7802687064",
}
"""Version → SHA-256 of its manifest, which has that of each other file. Add lines; never change or remove one."""


def test_no_bundled_version_has_changed_since_it_landed() -> None:
    found = {
        f"{folder.parent.name}/{folder.name}": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        for folder in bundled.all_versions()
    }
    changed = [name for name in LANDED if found.get(name) != LANDED[name]]
    assert not changed, f"{changed}: put it back, and make what has changed a new version"
    assert set(found) == set(LANDED), "a new version: add its line to LANDED"


@pytest.mark.parametrize("name", sorted(LANDED))
def test_the_files_of_a_bundled_version_are_those_of_its_manifest(name: str) -> None:
    folder = bundled.FOLDER / name
    manifest, digest = registry.read_folder(folder)  # checks the digest of each file
    assert digest == LANDED[name]
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *(file.file for file in manifest.files)}
