"""The archive for Lambda, which runs the function as another user than the one who owns the files."""

import shutil
import zipfile
from pathlib import Path

import pytest

from infra.aws import bundle, slim


def restrict(folder: Path) -> None:
    """Take all rights from all but the owner, as in a checkout made with umask 077."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)


def test_every_user_can_read_the_bundle_of_a_checkout_made_with_umask_077(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, packages = tmp_path / "checkout", tmp_path / "packages"
    for part in bundle.OURS:
        shutil.copytree(bundle.ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("bin", "botocore/data/s3", *slim.UNUSED):
        (packages / folder).mkdir(parents=True)
    (packages / "bin/program").touch(0o755)
    (packages / "module.py").touch()
    restrict(tmp_path)
    monkeypatch.setattr(bundle, "ROOT", checkout)
    monkeypatch.setattr(bundle, "BUILD", tmp_path / "build")
    monkeypatch.setattr(bundle, "dependencies", lambda: packages)
    bundle.main()
    with zipfile.ZipFile(tmp_path / "build/function.zip") as archive:
        modes = {one.filename: one.external_attr >> 16 & 0o777 for one in archive.infolist()}
    programs = {name for name in modes if name.endswith(("/", "/program"))}
    assert modes == {name: 0o755 if name in programs else 0o644 for name in modes}
    assert modes["bin/program"] == 0o755
    assert modes["upres/function/handler.py"] == modes["module.py"] == 0o644
