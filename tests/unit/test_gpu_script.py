"""`make gpu`: its parts keep to their time, one that fails stops no other, and an imitation is never shown as a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from torch.cuda import jiterator

from benchmarks.gpu import section
from benchmarks.gpu.__main__ import RESULTS, parts_in_time
from benchmarks.gpu.part import Checks
from benchmarks.gpu.parts import PARTS, SECONDS, Part
from benchmarks.gpu.runner import Ran, environment, run
from benchmarks.gpu.worker import READS_BADLY
from tests.support.paths import ROOT
from tests.support.waiting import wait_until

FIGURE = '{"name": "a.b", "value": 2, "unit": "ms", "peer": "eager", "peer_value": 4, "ratio": 0.5}'


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def parts(*names: str) -> list[Part]:
    return [Part(name, "about", 10, f"m.{name}") for name in names]


def test_the_parts_together_have_ten_minutes() -> None:
    assert sum(part.seconds for part in PARTS) == SECONDS == 600
    assert PARTS[0].name == "versions"
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_the_output_of_a_part_is_kept_and_its_json_lines_are_read(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text('{"name": "of an earlier part"}\n')
    code = f"print('{FIGURE}'); print('{{cut'); print('text'); import sys; sys.exit(3)"
    ran = run("a", python(code), 20, log, os.environ)
    assert (ran.outcome, ran.passed, ran.lines) == ("failed: exit code 3", False, (json.loads(FIGURE),))
    assert "text" in log.read_text()
    assert run("b", python("pass"), 20, log, os.environ).passed
    killed = run("c", python("import os; os.kill(os.getpid(), 9)"), 20, log, os.environ)
    assert killed.outcome == "failed: ended by SIGKILL"


def test_a_part_that_hangs_is_ended_with_its_children_when_its_time_has_run_out(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    code = (
        "import json, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(json.dumps({'child': child.pid}), flush=True)\n"
        "time.sleep(60)\n"
    )
    ran = run("a", python(code), 2, log, os.environ)
    assert ran.outcome == "failed: time ran out after 2 s"
    [line] = ran.lines  # what it has printed until then is kept
    wait_until(lambda: not runs(line["child"]))


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_failed_part_stops_no_other_and_what_time_did_not_allow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("benchmarks.gpu.__main__.time.monotonic", lambda: now[0])
    given: list[float] = []

    def run_one(part: Part, seconds: float) -> Ran:
        given.append(seconds)
        now[0] += {"quick": 2, "slow": 100}.get(part.name, seconds)
        return Ran(part.name, "passed" if part.name == "quick" else "failed: exit code 1")

    outcomes = [ran.outcome for ran in parts_in_time(parts("quick", "fails", "slow", "late"), 40, run_one)]
    assert outcomes == ["passed", "failed: exit code 1", "failed: exit code 1", "not run: time ran out"]
    assert given == [10, 18, 10], "what the first one left went to the next"


def test_without_a_usable_gpu_and_after_ctrl_c_the_rest_is_not_run() -> None:
    def unusable(part: Part, seconds: float) -> Ran:
        return Ran(part.name, "failed: exit code 69", unusable=True)

    def interrupted(part: Part, seconds: float) -> Ran:
        raise KeyboardInterrupt

    for run_one, why in ((unusable, "no usable GPU"), (interrupted, "interrupted")):
        first, *others = parts_in_time(parts("a", "b", "c"), 60, run_one)
        assert first.outcome.startswith("failed")
        assert {one.outcome for one in others} == {f"not run: {why}"}


def test_parts_run_without_another_upres_and_without_a_proxy(tmp_path: Path) -> None:
    given = {"UPRES_URL": "x", "UPRES_DEVICE": "cpu", "AWS_PROFILE": "x", "UPRES_REDIS_SERVER": "r", "NO_PROXY": "a"}
    made = environment({**given, "CUDA_VISIBLE_DEVICES": "1"}, tmp_path)
    assert not {"UPRES_URL", "UPRES_DEVICE", "AWS_PROFILE"} & made.keys()
    assert (made["UPRES_REDIS_SERVER"], made["CUDA_VISIBLE_DEVICES"]) == ("r", "1")
    assert made["NO_PROXY"] == "a,127.0.0.1,localhost"
    assert Path(made["TORCHINDUCTOR_CACHE_DIR"]).is_dir()
    assert Path(made["TMPDIR"]).parent == tmp_path


def test_a_check_that_breaks_off_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    checks = Checks()
    with checks.of("first"):
        raise ValueError("a\nb")
    with checks.of("second"):
        checks.expect(True, "fine")
    assert checks.code == 1
    assert json.loads(capsys.readouterr().out) == {"wrong": "first: ValueError: a"}


def test_a_failed_test_and_a_module_that_cannot_be_imported_are_named(tmp_path: Path) -> None:
    marked = "import pytest\npytestmark = pytest.mark.device\ndef test_fine(): pass\ndef test_bad(): assert 1 == 2\n"
    (tmp_path / "test_one.py").write_text(marked)
    (tmp_path / "test_two.py").write_text("import openvino_that_is_not_there")
    command = [sys.executable, "-m", "benchmarks.gpu.suite", "--device", "cpu", "--only", str(tmp_path)]
    ran = run("suite", command, 60, tmp_path / "log.txt", os.environ)
    wrong = [line["wrong"] for line in ran.lines if "wrong" in line]
    assert [one.partition(": ")[2] for one in wrong] == [
        "cannot be imported: ModuleNotFoundError: No module named 'openvino_that_is_not_there'",
        "assert 1 == 2",
    ]
    assert not ran.passed
    assert {line["name"]: line["value"] for line in ran.lines if "name" in line}["suite.passed"] == 1


def test_torch_can_read_the_kernel_with_the_bad_pointer() -> None:
    """It is compiled on a GPU only."""
    found = jiterator._CodeParser(READS_BADLY)
    assert (found.function_name, found.return_type, found.template_params) == ("reads_badly", "T", "<typename T>")
    assert "16ull" in found.function_body


def ran() -> list[Ran]:
    facts = ({"fact": "GPU", "value": "H | 200"}, {"wrong": "bad\npixels"}, {"missing": "compiled: no compiler"})
    return [Ran("versions", "passed", 3, facts), Ran("forward", "failed: x", 9, (json.loads(FIGURE),))]


def test_a_section_says_what_passed_what_was_measured_and_what_not() -> None:
    made = section.text(ran(), "H200", "2026-11-30", imitated=False)
    assert made.startswith(section.HEADING + "\n\nMeasured on 2026-11-30; device: H200.")
    for line in ("| GPU | H \\| 200 |", "| a.b | 2 ms | eager: 4 | 0.5 |", "- versions: compiled: no compiler"):
        assert line in made.splitlines()
    assert "failed: x | 9 s |" in made
    imitated = section.text(ran(), "none: imitated on a CPU", "2026-11-30", imitated=True)
    assert imitated.startswith(section.IMITATED + "\n\nImitated on 2026-11-30; device: none: imitated")


def test_a_section_replaces_the_last_one_and_nothing_else(tmp_path: Path) -> None:
    file, new = tmp_path / "RESULTS.md", section.text(ran(), "H200", "2026-11-30", imitated=False)
    file.write_text(f"# Results\n\ntext\n\n{section.HEADING}\n\nold\n\n### old, too\n\n## Next\n\nkept\n")
    section.put(file, new)
    once = file.read_text()
    assert once.startswith("# Results\n\ntext\n\n" + section.HEADING)
    assert once.endswith("\n\n## Next\n\nkept\n")
    assert "old" not in once
    section.put(file, new)
    assert file.read_text() == once
    section.put(tmp_path / "other.md", new)
    assert (tmp_path / "other.md").read_text() == new


def test_results_has_a_section_that_a_run_on_a_gpu_replaces() -> None:
    assert RESULTS.read_text().count(f"\n{section.HEADING}\n") == 1


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_without_cuda_the_script_says_what_to_do(tmp_path: Path) -> None:
    before = RESULTS.read_bytes()
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69, done.stderr
    assert "advice: Install" in done.stdout
    assert done.stdout.count("not run: no usable GPU") == len(PARTS) - 1
    assert RESULTS.read_bytes() == before


def test_quick_figures_of_a_gpu_are_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--quick is for --imitate" in done.stderr
