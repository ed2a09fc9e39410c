"""Decoding in confined processes: how they are confined, and what they answer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms

from tests import fuzz
from tests.support.images import encoded
from tests.support.paths import ROOT, SAMPLES
from upres.core.errors import TooManyPixels, TruncatedImage, Unconfined, UndecodableImage
from upres.core.formats import Holds
from upres.core.sizes import AS_IT_IS
from upres.worker.imaging import decoding, images
from upres.worker.imaging.decoding import BASE_BYTES, Decoders
from upres.worker.imaging.raster import MAX_NOTICES

CONFINED = """
import ctypes, errno, mmap, os, signal, socket, subprocess, sys, threading
from upres.worker.imaging.decoder import confine_child, confine_server
from upres.worker.imaging.sandbox import die_with, limit_time
victim, kept, role = int(sys.argv[1]), sys.argv[2], sys.argv[3]
as_child = role != "server"
pipe, clone = socket.socketpair()[0], dict(x86_64=56, aarch64=220)[os.uname().machine]
filters = confine_server({memory})
if as_child:
    limit_time()
    die_with(os.getppid())
    confine_child(getattr(filters, role))
libc = ctypes.CDLL(None, use_errno=True)
def refused(what):
    try:
        what()
    except OSError as error:
        return error.errno == errno.EPERM
    except (MemoryError, RuntimeError):
        return True
    return False
def c(name, *arguments):
    def what():
        if getattr(libc, name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)
    return what
tries = dict(
    read=lambda: open("/etc/passwd"),
    environ=lambda: open(f"/proc/{{victim}}/environ"),
    write=lambda: open("/tmp/upres-escaped", "w"),
    unlink=lambda: os.unlink(kept),
    rename=lambda: os.rename(kept, kept + "-moved"),
    mkdir=lambda: os.mkdir(kept + "-folder"),
    chmod=lambda: os.chmod(kept, 0o777),
    stat=lambda: os.stat(kept),
    list=lambda: os.listdir("/"),
    duplicate=lambda: os.dup(0),
    pipe=lambda: os.pipe(),
    memfd=lambda: os.memfd_create("x"),
    socket=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    unix=lambda: socket.socket(socket.AF_UNIX),
    kill=lambda: os.kill(victim, signal.SIGKILL),
    trace=c("ptrace", 16, victim, None, None),
    peek=c("process_vm_readv", victim, None, 0, None, 0, 0),
    limits=lambda: __import__("resource").prlimit(victim, 7, (0, 0)),
    limit=lambda: __import__("resource").prlimit(victim, 7, (0, 0)),
    namespace=c("syscall", clone, 0x10000000 | 17, 0, 0, 0, 0),
    run=lambda: subprocess.run(["true"]),
    replace=lambda: os.execv("/bin/true", ["true"]),
    code=lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    mount=c("unshare", 0x10000000),
    sleep=c("usleep", 1),
)
if as_child:
    tries |= dict(
        close=lambda: os.close(0),
        duplicate=lambda: os.dup2(0, 9),
        unlimited=c("prctl", 1, 0, 0, 0, 0),
        fork=os.fork,
        send=lambda: pipe.send(b"x"),
        handler=lambda: signal.signal(signal.SIGXCPU, signal.SIG_IGN),
        time=c("prlimit", 0, 0, None, None),
        receive=lambda: socket.recv_fds(pipe, 1, 1),
    )
if role == "others":
    tries |= dict(thread=threading.Thread(target=print).start)
allowed = [name for name, what in tries.items() if not refused(what)]
print(*allowed, flush=True)
os._exit(0)
"""


def png(size: tuple[int, int] = (4, 4)) -> bytes:
    return encoded(Image.new("RGB", size), "PNG")


@pytest.mark.parametrize("role", ["server", "heic", "others"])
def test_a_confined_process_cannot_use_files_sockets_or_other_processes(tmp_path: Path, role: str) -> None:
    """This holds for the process that decodes an image, and except for what forking takes, for the fork server.

    Only a decoder of HEIC may make threads, which are confined like it.
    """
    kept = tmp_path / "kept"
    kept.touch()
    with subprocess.Popen(["sleep", "60"]) as victim:
        code = CONFINED.format(memory=BASE_BYTES)
        command = [sys.executable, "-c", code, str(victim.pid), str(kept), role]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, env=environment)
        assert victim.poll() is None
        victim.kill()
    assert done.stderr == ""
    assert done.stdout.split() == []
    assert list(tmp_path.iterdir()) == [kept]


def test_a_confined_process_has_limited_memory() -> None:
    code = f"from upres.worker.imaging.sandbox import limit_memory\nlimit_memory({BASE_BYTES})\nbytearray({BASE_BYTES})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.stderr.strip().endswith("MemoryError")


def test_nothing_is_decoded_when_confinement_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For example without libseccomp: the worker does not start, and the error gives the reason."""
    (tmp_path / "pyseccomp.py").write_text("raise RuntimeError('there is no libseccomp')")
    start: Any = subprocess.Popen

    def without(*arguments: Any, env: dict[str, str], **options: Any) -> Any:
        return start(*arguments, env={**env, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, **options)

    monkeypatch.setattr(subprocess, "Popen", without)
    with pytest.raises(Unconfined, match="there is no libseccomp"):
        Decoders(1, 100).start()
    with pytest.raises(Unconfined, match="there is no libseccomp"):
        Decoders(1, 100).decode(encoded(Image.new("RGB", (4, 4)), "PNG"), 100)


@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_a_child_process_decodes_the_same_pixels_as_the_worker_would(
    decoders: Decoders, name: str, format: str
) -> None:
    with Image.open(SAMPLES / name) as image:
        data = encoded(image.convert("RGB"), format)
    here, there = images.decode(data, 10**6), decoders.decode(data, 10**6)
    assert (here.pixels == there.pixels).all()
    assert (here.gray, here.format, here.icc) == (there.gray, there.format, there.icc)


def test_a_child_process_returns_alpha_gray_flag_and_icc_profile(decoders: Decoders) -> None:
    image = Image.new("RGBA", (30, 20), (7, 7, 7, 9))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    here, there = (
        decode(encoded(image, "PNG", icc_profile=profile), 1000) for decode in (images.decode, decoders.decode)
    )
    assert here.alpha is not None
    assert there.alpha is not None
    assert (here.alpha == there.alpha).all()
    assert there.gray
    assert there.icc == profile


def test_errors_of_a_child_process_keep_their_type(decoders: Decoders) -> None:
    data = encoded(Image.new("RGB", (100, 100)), "PNG")
    with pytest.raises(TooManyPixels, match="100×100"):
        decoders.decode(data, 9999)
    with pytest.raises(TruncatedImage):
        decoders.decode(data[:60], 10000)


def test_an_image_that_needs_too_much_memory_fails_alone(decoders: Decoders) -> None:
    huge = encoded(Image.new("1", (40_000, 40_000)), "PNG")
    with pytest.raises((UndecodableImage, TooManyPixels)):
        decoders.decode(huge, 10**12)
    with pytest.raises(UndecodableImage, match="memory"):
        decoders.decode(bytes(BASE_BYTES), 100)
    assert decoders.decode(encoded(Image.new("RGB", (4, 4)), "PNG"), 100).size == (4, 4)


@pytest.mark.parametrize(
    "header",
    [
        {"shape": [10**6, 10**6, 3]}, {"shape": [0, 4, 3]}, {"shape": [4, 4, 1]}, {"icc": 10**12}, {"icc": -1},
        {"format": "exe"}, {"shape": "x"}, {"code": "nothing"}, {"code": 7, "message": None},
        {"notices": "x"}, {"notices": [1]}, {"notices": None}, {"notices": {"a": "b"}},
    ],
)  # fmt: skip
def test_an_invalid_response_header_of_a_child_process_is_rejected(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch, header: dict[str, object]
) -> None:
    data = encoded(Image.new("RGB", (4, 4)), "PNG")
    received = {"shape": [4, 4, 3], "alpha": False, "gray": False, "icc": None, "format": "png", **header}
    read = json.loads
    monkeypatch.setattr(json, "loads", lambda text: {**read(text), **received})
    with pytest.raises(UndecodableImage):
        decoders.decode(data, 100)
    monkeypatch.undo()
    other = encoded(Image.new("RGB", (5, 6), "red"), "PNG")
    assert decoders.decode(other, 100).size == (5, 6)  # the new response, not the rest of the first one


def test_every_kind_of_file_is_decoded_in_a_confined_process_too(decoders: Decoders) -> None:
    """Each library is loaded before, makes no thread except for HEIC, and opens no file."""
    for data in fuzz.seeds():
        here, there = images.decode(data, 10**6), decoders.decode(data, 10**6)
        assert (here.pixels == there.pixels).all(), data[:32]
        assert (here.gray, here.format, here.icc) == (there.gray, there.format, there.icc)


HOLDS = Holds(frames=True, pages=True)


def moving() -> bytes:
    stills = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    return encoded(stills[0], "PNG", save_all=True, append_images=stills[1:], duration=[10, 20, 30], loop=2)


def test_all_frames_and_pages_are_decoded_in_a_confined_process_too(decoders: Decoders) -> None:
    pages = [Image.new("L", (4, 4), 7), Image.new("RGB", (5, 6), "red")]
    for data in (*fuzz.seeds(), moving(), encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])):
        here, there = images.decode_all(data, 10**6), decoders.decode_all(data, 10**6, "strip", AS_IT_IS, HOLDS)
        assert (here.durations, here.plays, here.left_out) == (there.durations, there.plays, there.left_out)
        assert here.notices == there.notices
        for one, other in zip(here.frames, there.frames, strict=True):
            assert (one.pixels == other.pixels).all(), data[:32]
    assert decoders.decode_all(moving(), 100, "strip", AS_IT_IS, Holds(frames=False, pages=True)).left_out == "frames"
    assert decoders.decode_all(moving(), 100, "strip", AS_IT_IS, None).left_out is None


@pytest.mark.parametrize(
    "header",
    [
        {"count": 0}, {"count": 10**9}, {"count": 4}, {"durations": [1]}, {"durations": [-1, 1, 1]},
        {"durations": [10**9] * 3}, {"durations": "x"}, {"plays": -1}, {"plays": 10**9}, {"left_out": "all"},
        {"shape": [12, 12, 3]}, {"more_notices": "x"},
    ],
)  # fmt: skip
def test_impossible_frames_of_a_decoder_are_rejected(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch, header: dict[str, object]
) -> None:
    """Also when there are more pixels in all frames together than the image may have."""
    monkeypatch.setattr(decoding, "DECODE_SECONDS", 2)
    read = json.loads
    monkeypatch.setattr(json, "loads", lambda text: {**read(text), **header})
    with pytest.raises(UndecodableImage):
        decoders.decode_all(moving(), 150, "strip", AS_IT_IS, HOLDS)


def test_frames_of_an_animation_that_differ_are_rejected(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    read, grays = json.loads, iter([True, False, False])
    monkeypatch.setattr(json, "loads", lambda text: {**read(text), "gray": next(grays)})
    with pytest.raises(UndecodableImage):
        decoders.decode_all(moving(), 150, "strip", AS_IT_IS, HOLDS)


def test_the_notices_of_a_decoder_are_passed_on(decoders: Decoders) -> None:
    data = encoded(Image.new("RGB", (64, 64), "red"), "JPEG")[:-2]
    assert decoders.decode(data, 10**6).notices == images.decode(data, 10**6).notices
    assert "missing" in decoders.decode(data, 10**6).notices[0]


def test_what_a_compromised_decoder_says_is_bounded(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    read = json.loads
    monkeypatch.setattr(json, "loads", lambda text: read(text) | {"notices": ["\x1b[2J" + "x" * 5000] * 100})
    notices = decoders.decode(png(), 100).notices
    assert len(notices) == MAX_NOTICES
    assert all(len(one) <= 500 and one.isprintable() for one in notices)
