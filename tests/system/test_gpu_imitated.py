"""`make gpu` from beginning to end, imitated on the CPU with as little work as possible. It takes two minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import section
from benchmarks.gpu.__main__ import RESULTS
from benchmarks.gpu.parts import PARTS, SECONDS
from tests.support.paths import ROOT


@pytest.mark.timeout(SECONDS + 60)
def test_all_parts_pass_in_an_imitation_which_is_never_taken_for_a_gpu(tmp_path: Path) -> None:
    before, results = RESULTS.read_bytes(), tmp_path / "results.md"
    command = [sys.executable, "-m", "benchmarks.gpu", "--imitate", "--quick", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--results", str(results)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{(tmp_path / 'log.txt').read_text()}"
    lines = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert {line["part"]: line["outcome"] for line in lines if "outcome" in line} == {
        part.name: "passed" for part in PARTS
    }
    assert all(line["imitation"] and line["device"].startswith("none: imitated on ") for line in lines)
    facts = {line["fact"]: line["value"] for line in lines if "fact" in line}
    assert facts["index: exit code of the worker"] == "75"
    assert "device-side assert triggered (imitated)" in facts["index: the device says"]
    assert results.read_text().startswith(section.IMITATED)
    assert section.HEADING not in results.read_text()
    assert RESULTS.read_bytes() == before, "figures of an imitation do not belong there"
