"""Tests of parts of the worker that run in a process of their own."""

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from upres.worker.engine import own_process


def program(code: str) -> Sequence[str]:
    return (sys.executable, "-c", f"import os, sys, time; {code}")


def test_a_slow_program_gets_all_its_input_and_the_worker_does_something_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_process, "BEAT_SECONDS", 0.01)
    beats: list[int] = []
    echo = "time.sleep(0.3); sys.stdout.buffer.write(sys.stdin.buffer.read())"
    given = b"x" * 3_000_000  # more than a pipe holds
    ended = own_process.run(program(echo), given, 60, lambda: beats.append(1))
    assert ended.stdout == given
    assert beats


def test_a_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        own_process.run(program("time.sleep(600)"), b"", 0.05)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (f"os.kill(os.getpid(), {int(signal.SIGSEGV)})", "ended by signal SIGSEGV"),
        ("sys.exit('no memory')", r"failed with code 1 \(no memory\)"),
        ("sys.exit(3)", r"failed with code 3 \(\)"),
    ],
)
def test_it_says_how_a_process_ended(code: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(own_process.how_it_ended(own_process.run(program(code), b"", 60)))


def test_a_hard_limit_that_is_lower_than_the_free_memory_stays() -> None:
    code = (
        "import resource; from upres.worker.engine import own_process; size = resource.RLIMIT_DATA; most = 1 << 30; "
        "resource.setrlimit(size, (most, most)); own_process.confine(os.getppid()); print(resource.getrlimit(size))"
    )
    ended = own_process.run(program(code), b"", 60)
    assert ended.stdout.decode().strip() == str((1 << 30, 1 << 30)), ended.stderr
