"""Packages with known vulnerabilities: what `make check` does about them, and which versions are installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOUND = '{"dependencies": [{"name": "pip", "version": "1", "vulns": [%s]}]}'
FLAW = '{"id": "CVE-1", "fix_versions": ["2"]}'


@pytest.mark.parametrize(("answer", "code"), [(FOUND % FLAW, 1), (FOUND % "", 0), ("", 0)])
def test_a_known_vulnerability_fails_make_check(tmp_path: Path, answer: str, code: int) -> None:
    """pip-audit's service cannot be reached here, so its answer is one that it would give."""
    (tmp_path / "pip_audit.py").write_text(f"print({answer!r})")
    check = subprocess.run(["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert "-m infra.audit" in check.stdout
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "infra.audit"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == code, done.stdout
    assert ("CVE-1" in done.stdout) == bool(code)


def test_every_requirement_names_a_version_or_series() -> None:
    files = [path for path in ROOT.glob("**/*requirements*.txt") if not path.relative_to(ROOT).parts[0].startswith(".")]
    assert len(files) >= 8
    for path in files:
        for line in path.read_text().splitlines():
            package = line.partition("#")[0].strip()
            fixed = re.match(r"-r |\S+[~=]=\S|certifi>=", package)
            assert not package or fixed, (path, line)
