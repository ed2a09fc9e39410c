"""Files appear whole, are on the disk before they have their name, and replace nothing that is not theirs."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests.support.waiting import wait_until
from upres.client import atomic_file, file_lock
from upres.client.atomic_file import atomic_write
from upres.client.file_lock import delete_if_unused


def write(path: Path, data: bytes = b"new", **options: atomic_file.MayReplace) -> None:
    with atomic_write(path, **options) as file:
        file.write(data)


def never(existing: os.stat_result) -> bool:
    return False


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_forced_to_the_disk_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "a", list[str]()
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        size = "" if kind == "folder" else f" of {os.fstat(descriptor).st_size}"
        calls.append(f"{kind}{size}, named {path.exists()}")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write(path, b"x" * 100_000)
    assert calls == ["file of 100000, named False", "folder, named True"]


@pytest.mark.parametrize("linking", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_during_the_write_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linking: bool
) -> None:
    if not linking:
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    path = tmp_path / "a"
    with pytest.raises(FileExistsError), atomic_write(path, never) as file:
        file.write(b"new") and path.write_bytes(b"foreign")
    assert path.read_bytes() == b"foreign"
    path.unlink()
    write(path, may_replace=never)
    assert path.read_bytes() == b"new"
    write(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["a"]


def refuse(number: int) -> Callable[..., None]:
    def call(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_of_many_writers_of_one_name_exactly_one_succeeds(tmp_path: Path) -> None:
    won: list[int] = []

    def compete(number: int) -> None:
        try:
            write(tmp_path / "a", str(number).encode(), may_replace=never)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(tmp_path / "a").read_bytes()] == [str(number).encode() for number in won]


def test_a_symbolic_link_remains_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("deep/target")
    for data in (b"first", b"second"):
        write(tmp_path / "link", data)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "deep/target").read_bytes() == data
    assert names(tmp_path / "deep") == ["target"]


def test_a_pipe_and_a_device_are_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"into the pipe")
    reader.join(10)
    assert received == [b"into the pipe"]
    assert pipe.is_fifo()
    (tmp_path / "null").symlink_to("/dev/null")
    write(tmp_path / "null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert names(tmp_path) == ["null", "pipe"]


def test_standard_output_is_written_into_also_when_it_is_a_file(tmp_path: Path) -> None:
    code = "from upres.client.atomic_file import *; f = atomic_write(Path('/dev/stdout')); f.__enter__().write(b'x')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", f"{code}; f.__exit__(None, None, None)"], stdout=out, check=True)
        assert os.fstat(out.fileno()).st_nlink == 1
    assert (tmp_path / "out").read_bytes() == b"x"


def test_a_file_in_shared_memory_is_written_as_any_other() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "a")
        path.write_bytes(b"foreign")
        with pytest.raises(FileExistsError):
            write(path, may_replace=never)
        assert path.read_bytes() == b"foreign"


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write(tmp_path)


def test_an_existing_files_permissions_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_error_of_the_disk_leaves_no_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", refuse(number))
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match=os.strerror(number)):
        write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_file_system_without_fsync_is_used_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_the_hidden_file_of_a_killed_writer_is_deleted_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
from upres.client.atomic_file import *
with atomic_write(Path({str(tmp_path / "a")!r})) as file:
    file.write(b"half")
    file.flush()
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as writer:
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob(".upres-*.part")))
        write(tmp_path / "b")
        assert len(list(tmp_path.glob(".upres-*.part"))) == 1
        writer.send_signal(signal.SIGKILL)
    monkeypatch.setattr(atomic_file, "_cleaned", set())  # as in a new process
    write(tmp_path / "c")
    assert names(tmp_path) == ["b", "c"]


def test_a_hidden_file_that_is_deleted_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_lock, first = file_lock.lock, [True]

    def lock(file: IO[bytes]) -> bool:
        if first.pop() if first else False:
            assert all(map(delete_if_unused, tmp_path.glob(".upres-*.part")))
        return real_lock(file)

    monkeypatch.setattr(atomic_file, "lock", lock)
    write(tmp_path / "a")
    assert names(tmp_path) == ["a"]
