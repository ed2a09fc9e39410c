"""The local stack (`upres up`) leaves no process behind, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until
from upres.embedded import stack
from upres.embedded.child import Child, ChildDied, accepts, free_port

STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]

PARTS = ("valkey-server", "rclone", "function", "worker")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of `upres up` that is ready."""
    command = [sys.executable, "-m", "upres", "up", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("upres is ready at http://127.0.0.1:")
        yield process
        process.kill()


def descendants(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    assert all(any(part in line for line in lines(process)) for part in PARTS), lines(process)
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_no_process_remains_after_a_signal_stops_upres_up(
    serving: "subprocess.Popen[str]", tmp_path: Path, number: signal.Signals, code: int
) -> None:
    children = descendants(serving)
    serving.send_signal(number)
    assert serving.wait(30) == code
    gone(children)
    if number != signal.SIGKILL:
        assert not list(tmp_path.glob("upres-*"))


def test_when_one_part_dies_upres_up_stops_the_others_and_shows_its_log(serving: "subprocess.Popen[str]") -> None:
    children = descendants(serving)
    [worker] = [child for child in children if child.cmdline()[1:] == ["-m", "upres.worker"]]
    worker.kill()
    assert serving.wait(30) == 1
    gone(children)
    assert serving.stderr is not None
    message = serving.stderr.read()
    assert "worker ended with code 137" in message
    assert "model photo 1 ready" in message


def test_a_command_gets_the_settings_and_upres_up_returns_its_exit_code() -> None:
    code = "import os, sys; print(os.environ['UPRES_URL'], os.environ['UPRES_REDIS_URL']); sys.exit(7)"
    command = [sys.executable, "-m", "upres", "up", "--port", "0", "--", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7
    assert done.stdout.startswith("http://127.0.0.1:")
    assert "redis://127.0.0.1:" in done.stdout


@pytest.fixture
def sleeping() -> Iterator["subprocess.Popen[str]"]:
    """A process of `upres up -- sleep 321` whose command is running."""
    command = [sys.executable, "-m", "upres", "up", "--port", "0", "--", "sleep", "321"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: "sleep 321" in lines(process), 60)
            yield process
        finally:
            process.kill()


def lines(process: "subprocess.Popen[str]") -> list[str]:
    """Return the command lines of all descendants of a process; skip those that end in the meantime."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            found.append(" ".join(child.cmdline()))
    return found


def test_a_command_ends_when_upres_up_is_killed(sleeping: "subprocess.Popen[str]") -> None:
    children = psutil.Process(sleeping.pid).children(recursive=True)
    sleeping.kill()
    gone(children)


def test_a_command_ends_when_a_part_of_the_stack_dies(sleeping: "subprocess.Popen[str]") -> None:
    children = psutil.Process(sleeping.pid).children(recursive=True)
    next(child for child in children if child.cmdline()[1:] == ["-m", "upres.worker"]).kill()
    assert sleeping.wait(30) == 1
    assert sleeping.stderr is not None
    assert "worker ended with code 137" in sleeping.stderr.read()
    gone(children)


def test_a_missing_command_gives_exit_code_127_and_one_line_of_error() -> None:
    command = [sys.executable, "-m", "upres", "up", "--port", "0", "--", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 127
    assert done.stderr == "no-such-command: there is no such command\n"


def test_a_child_process_that_is_not_ready_in_time_raises_an_error(tmp_path: Path) -> None:
    child = Child("sleeper", ["sleep", "100"], {}, tmp_path)
    with pytest.raises(ChildDied, match=r"not ready within 0\.2 seconds"):
        child.wait_ready(lambda: False, seconds=0.2)
    child.stop()


def test_a_child_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(100)"
    child = Child("stubborn", [sys.executable, "-c", code], {}, tmp_path, grace=0.2)
    child.wait_ready(lambda: "ready" in child.log.read_text())
    [process] = [p for p in psutil.Process().children(recursive=True) if code in p.cmdline() and p.cmdline()[1] == "-c"]
    child.stop()
    gone([process])


def test_free_port_returns_a_port_that_no_process_listens_on() -> None:
    port = free_port()
    assert not accepts(port)
    assert free_port(port) == port


def test_a_disk_without_room_is_named_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "MIN_FREE_MEGABYTES", 10**9)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(ChildDied, match=f"MB are free for data in {tmp_path}; .* Set TMPDIR"), stack.Local():
        pass
    assert not list(tmp_path.iterdir())


def test_upres_up_takes_the_setting_of_access(tmp_path: Path) -> None:
    """It was dropped without a word, and everybody was served."""
    asks = "import os, requests; print(requests.get(os.environ['UPRES_URL'] + '/v1/models', timeout=20).status_code)"
    command = [sys.executable, "-m", "upres", "up", "--port", "0", "--", sys.executable, "-c", asks]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "UPRES_ACCESS": "keys"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (0, "401\n"), done.stderr
    wrong = {**environment, "UPRES_ACCESS": "closed"}
    refused = subprocess.run(command, env=wrong, capture_output=True, text=True, timeout=90)
    assert refused.returncode == 1
    assert "UPRES_ACCESS: Input should be 'keys' or 'open'" in refused.stderr
