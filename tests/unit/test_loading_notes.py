"""Tests of the notes by which a worker remembers at the loading of which version it died."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from upres.core.errors import ModelUnavailable
from upres.worker import loading_notes
from upres.worker.loading_notes import MAX_DEATHS, NOTE_SECONDS, loading

KEY = "0" * 64


def end_while_loading(cache: Path, how: str) -> None:
    """Run a process that ends while it loads the version."""
    code = (
        "import os, sys, pathlib; from upres.worker import loading_notes\n"
        f"with loading_notes.loading(pathlib.Path(sys.argv[1]), {KEY!r}, 'm 2'): {how}"
    )
    subprocess.run([sys.executable, "-c", code, str(cache)], timeout=60, capture_output=True)


def test_a_version_that_a_worker_died_of_twice_is_not_loaded_for_a_day(tmp_path: Path) -> None:
    for _ in range(MAX_DEATHS):
        with loading(tmp_path, "1" * 64, "m 1"):
            pass  # another version
        end_while_loading(tmp_path, "os.kill(os.getpid(), 11)")
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="m 2 is not loaded here: 2 workers of this machine died"):
            loading(tmp_path, KEY, "m 2").__enter__()
    [note] = tmp_path.glob("loading/*")
    os.utime(note, (0, time.time() - NOTE_SECONDS - 1))
    with loading(tmp_path, KEY, "m 2"):
        assert note.stat().st_size == 1
    assert not note.exists()


@pytest.mark.parametrize("how", ["raise ValueError", "pass", "loading_notes.forget(); os._exit(0)"])
def test_an_error_an_end_and_a_signal_to_stop_are_no_deaths(tmp_path: Path, how: str) -> None:
    end_while_loading(tmp_path, how)
    assert not list(tmp_path.glob("loading/*"))


def test_a_version_that_another_worker_loads_now_is_no_death(tmp_path: Path) -> None:
    with loading(tmp_path, KEY, "m 2"), loading(tmp_path, KEY, "m 2"):
        [note] = tmp_path.glob("loading/*")
        assert note.stat().st_size == 1
    assert not list(tmp_path.glob("loading/*"))
    assert not loading_notes._open


def test_without_a_folder_that_can_be_written_nothing_is_noted(tmp_path: Path) -> None:
    (tmp_path / "loading").write_bytes(b"a file")
    for cache in (None, tmp_path, Path("/proc/self")):
        with loading(cache, KEY, "m 2"):
            pass


def test_on_a_full_disk_nothing_is_noted(tmp_path: Path) -> None:
    """The file can be made, and nothing be written into it."""
    code = (
        "import pathlib, resource, sys; from upres.worker import loading_notes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"with loading_notes.loading(pathlib.Path(sys.argv[1]), {KEY!r}, 'm 2'): pass"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, capture_output=True)
    assert ended.returncode == 0, ended.stderr


def test_a_worker_that_is_stopped_while_it_loads_did_not_die_of_it(tmp_path: Path) -> None:
    """While it serves: another version is loaded by a thread that ends with the process."""
    code = (
        "import pathlib, sys, threading, types; from unittest import mock\n"
        "from upres.worker import loading_notes, service\n"
        "begun, threads, context = threading.Event(), mock.MagicMock(), mock.MagicMock()\n"
        "def load():\n"
        f"    with loading_notes.loading(pathlib.Path(sys.argv[1]), {KEY!r}, 'm 2'): begun.set(); signals.wait(600)\n"
        "threads.heartbeat.stuck, threads.are_busy.return_value, context.thread.lost = False, False, None\n"
        "context.thread.stats.busy_share.return_value = 0\n"
        "signals = types.SimpleNamespace(stop=mock.Mock(), wait=threading.Event().wait)\n"
        "service.Signals, service._log_ready, service._give_back = lambda: signals, print, lambda *_: False\n"
        "threading.Thread(target=load, daemon=True).start(); begun.wait()\n"
        "sys.exit(service._serve(mock.Mock(stop_seconds=0), threads, context, mock.Mock()))"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert not list(tmp_path.glob("loading/*"))
