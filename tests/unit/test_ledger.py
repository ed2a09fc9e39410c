"""The ledger of an output folder: claims of several commands, file systems, and commands that were killed."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import wait_until
from upres.client import ledger
from upres.client.ledger import NAME, Ledger


@given(names=st.lists(st.text("ab/", min_size=1, max_size=6), max_size=20))
def test_an_output_path_can_be_claimed_by_one_source_only(names: list[str]) -> None:
    with Ledger(None) as ledger:
        owners: dict[str, str] = {}
        for index, name in enumerate(names):
            place = os.path.normpath(os.path.abspath(name)).replace("//", "/")
            assert ledger.claim(Path(name), str(index)) == owners.get(place)
            owners.setdefault(place, str(index))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("ext4", "wal"), ("nfs4", "delete"), ("fuse.sshfs", "delete"), ("fuse.glusterfs", "delete"), (None, "delete")],
    ids=str,
)
def test_the_ledger_uses_wal_mode_only_on_local_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, mode: str
) -> None:
    """The last mount at the nearest mount point decides; Linux writes a space in its path as \\040."""
    folder = tmp_path / "my Büro"
    folder.mkdir()
    mounts = tmp_path / "mounts"
    if kind:
        place = str(folder).replace(" ", r"\040")
        lines = ["/dev/sda1 / ext4 rw 0 0", f"auto {place} autofs rw 0 0", f"here {place} {kind} rw 0 0"]
        mounts.write_bytes("\n".join(lines).encode() + b"\nother /m\xff nfs rw 0 0\n")
    monkeypatch.setattr(ledger, "MOUNTS", mounts)
    with Ledger(folder):
        connection = sqlite3.connect(folder / NAME)
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
        connection.close()


def test_claims_and_hidden_files_of_a_killed_command_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    code = f"""
from pathlib import Path
from upres.client.atomic_file import atomic_write
from upres.client.ledger import Ledger
out = Path({str(tmp_path)!r})
with Ledger(out) as ledger:
    ledger.claim(out / "deep/a.png", "one")
    with atomic_write(out / "deep/a.png") as file:
        print("ready", flush=True)
        input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == b"ready\n"
        with Ledger(tmp_path) as other:
            assert other.claim(tmp_path / "deep/a.png", "two") == "one"
        killed.send_signal(signal.SIGKILL)
        killed.wait(10)
    with Ledger(tmp_path) as other:
        assert other.claim(tmp_path / "deep/a.png", "two") is None
    wait_until(lambda: not list((tmp_path / "deep").iterdir()))
    assert {path.name for path in tmp_path.iterdir()} <= {"deep", NAME, f"{NAME}-wal", f"{NAME}-shm"}


def test_a_ledger_of_an_older_version_is_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / NAME) as old:
        old.execute(
            "CREATE TABLE results (output BLOB PRIMARY KEY, source BLOB, bytes INTEGER, mtime_ns INTEGER, "
            "options TEXT, done INTEGER) WITHOUT ROWID"
        )
        old.execute("INSERT INTO results VALUES (?, ?, 1, 1, 'x', 1)", (b"a.png", b"/photo"))
    old.close()
    with Ledger(tmp_path) as new:
        assert new.made_of(tmp_path / "a.png") == "/photo"
        new.record(("/photo", 1, 1), "x", tmp_path / "a.png", 0)
        (tmp_path / "a.png").touch()
        assert new.finished(("/photo", 1, 1), "x") == tmp_path / "a.png"
