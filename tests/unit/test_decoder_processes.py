"""The processes that decode images: one for each image, and what happens when one hangs or dies."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.support.images import encoded
from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from upres.core.errors import ImageError, UndecodableImage, WorkerUnavailable
from upres.worker.imaging import decoding, fork_server
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.fork_server import Decoder, ForkServer


def png(size: tuple[int, int] = (4, 4)) -> bytes:
    return encoded(Image.new("RGB", size), "PNG")


def server() -> psutil.Process | None:
    """The fork server of the decoders in this process, if one runs."""
    alive = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    found = [one for one in alive if "upres.worker.imaging.decoder" in one.cmdline()]
    assert len(found) <= 1
    return found[0] if found else None


def processes() -> list[psutil.Process]:
    """The processes that it has forked."""
    return found.children() if (found := server()) else []


def wait_for_spare() -> psutil.Process:
    """Wait until the only decoder is the next one, which has no image yet, and return it."""

    def is_there() -> bool:
        with suppress(psutil.NoSuchProcess):  # an earlier one that ends now
            return [(one.status(), descriptors(one)) for one in processes()] == [
                (psutil.STATUS_SLEEPING, {"0", "1", "2"})
            ]
        return False

    wait_until(is_there)
    return processes()[0]


def descriptors(process: psutil.Process) -> set[str]:
    """The file descriptors of a process; on systems without /proc those that it should have."""
    if sys.platform != "linux":
        return {"0", "1", "2"}
    try:
        return set(os.listdir(f"/proc/{process.pid}/fd"))
    except FileNotFoundError:
        raise psutil.NoSuchProcess(process.pid) from None


def test_a_decoder_does_not_inherit_the_environment_of_the_worker(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    decoders.decode(png(), 100)
    started = server()
    assert started
    for one in (started, wait_for_spare()):
        assert set(one.environ()) <= {"PYTHONPATH", "PATH", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "LC_CTYPE"}
    decoders.close()
    assert server() is None


def holders(process: psutil.Process, pattern: bytes) -> int:
    """How often the memory of a process contains a pattern. Raises OSError for memory that cannot be read."""
    count = 0
    with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
        maps = Path(f"/proc/{process.pid}/maps")
        for area in maps.read_text().splitlines():
            begin, end = (int(number, 16) for number in area.split()[0].split("-"))
            if "r" in area.split()[1] and "[v" not in area:
                memory.seek(begin)
                try:
                    count += memory.read(end - begin).count(pattern)
                except OSError:
                    is_own = process.pid == os.getpid()  # other threads of this process free memory all the time
                    if not is_own and area in maps.read_text():  # else it was freed meanwhile
                        raise
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_no_process_that_decodes_an_image_has_seen_another_one(decoders: Decoders) -> None:
    pattern = secrets.token_bytes(48)
    data = encoded(Image.frombytes("RGB", (256, 256), pattern * 4096), "BMP")
    assert decoders.decode(data, 10**6).pixels.tobytes() == pattern * 4096
    started, spare = server(), wait_for_spare()
    assert started
    assert holders(psutil.Process(), pattern), "the search finds it where it is"
    assert holders(started, pattern) + holders(started, data[54:102]) == 0
    assert holders(spare, pattern) + holders(spare, data[54:102]) == 0
    assert decoders.decode(png(), 100).size == (4, 4)
    wait_until(lambda: not spare.is_running())


def test_each_image_has_a_process_of_its_own_and_none_is_left(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    fork = ForkServer.fork

    def noted(self: ForkServer) -> Decoder:
        used.append(fork(self))
        return used[-1]

    monkeypatch.setattr(ForkServer, "fork", noted)
    for data in (png(), png()[:40], b"no image", png()):
        with suppress(ImageError):
            decoders.decode(data, 100)
    assert len({one.pid for one in used}) == 4
    assert wait_for_spare().pid not in {one.pid for one in used}, "the others were reaped, too"


def test_a_decoder_has_no_descriptor_but_its_own_socket(decoders: Decoders) -> None:
    decoders.decode(png(), 100)
    started, spare = server(), wait_for_spare()
    assert started
    open_files = {name: os.readlink(f"/proc/{spare.pid}/fd/{name}") for name in os.listdir(f"/proc/{spare.pid}/fd")}
    assert (set(open_files), open_files["1"], open_files["2"]) == ({"0", "1", "2"}, "/dev/null", "/dev/null")
    assert open_files["0"] != os.readlink(f"/proc/{started.pid}/fd/0")


def test_a_decoder_that_hangs_is_killed_and_the_next_image_has_another(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders.decode(png(), 100)
    monkeypatch.setattr(decoding, "DECODE_SECONDS", 0.2)
    first = wait_for_spare()
    first.suspend()
    with pytest.raises(UndecodableImage, match="within"):
        decoders.decode(png(), 100)
    monkeypatch.undo()
    wait_until(lambda: not first.is_running())
    assert decoders.decode(png(), 100).size == (4, 4)


@pytest.mark.parametrize("victim", [server, wait_for_spare])
def test_a_decoder_or_fork_server_that_is_killed_is_replaced(
    decoders: Decoders, victim: Callable[[], psutil.Process]
) -> None:
    decoders.decode(png(), 100)
    wait_for_spare()
    killed = victim()
    killed.kill()
    wait_until(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
    assert decoders.decode(png(), 100).size == (4, 4)


def test_a_fork_server_that_hangs_is_replaced(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders.decode(png(), 100)
    monkeypatch.setattr(fork_server, "FORK_SECONDS", 0.2)
    wait_for_spare()
    hanging = server()
    assert hanging
    hanging.suspend()
    assert decoders.decode(png(), 100).size == (4, 4)  # by the process that was forked before
    assert decoders.decode(png(), 100).size == (4, 4)
    assert not hanging.is_running()


def test_a_system_without_room_for_processes_is_named(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders.decode(png(), 100)
    monkeypatch.setattr(ForkServer, "_forked", lambda self: None)
    with pytest.raises(WorkerUnavailable, match="makes no process"):
        decoders.decode(png(), 100)
    monkeypatch.undo()
    assert decoders.decode(png(), 100).size == (4, 4)


def test_decoders_end_when_their_worker_is_killed() -> None:
    code = (
        "import os\nfrom upres.worker.imaging.decoding import Decoders\n"
        "d = Decoders(1, 10**6); d.start()\nimport psutil\n"
        "print(*[one.pid for one in psutil.Process().children(recursive=True)], flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) >= 2
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 10)


def test_decoders_of_a_killed_fork_server_end_although_their_worker_lives(decoders: Decoders) -> None:
    decoders.decode(png(), 100)
    spare, started = wait_for_spare(), server()
    assert started
    started.kill()
    wait_until(lambda: not spare.is_running())


def test_concurrent_images_are_decoded_by_at_most_two_processes_and_the_next(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [encoded(Image.new("L", (size, size), size), "PNG") for size in range(1, 60)]
    running: set[int] = set()
    counts: list[int] = []
    fork, end = ForkServer.fork, ForkServer.end

    def noted_fork(self: ForkServer) -> Decoder:
        decoder = fork(self)
        running.add(decoder.pid)
        counts.append(len(running))
        return decoder

    def noted_end(self: ForkServer, decoder: Decoder) -> None:
        running.remove(decoder.pid)
        end(self, decoder)

    monkeypatch.setattr(ForkServer, "fork", noted_fork)
    monkeypatch.setattr(ForkServer, "end", noted_end)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda data: decoders.decode(data, 10**6), files))
    assert all((picture.pixels == np.uint8(size)).all() for size, picture in enumerate(pictures, 1))
    assert max(counts) == 2
    wait_for_spare()
