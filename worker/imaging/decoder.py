"""`python -m upres.worker.imaging.decoder BYTES`: a confined process that decodes images from untrusted clients.

It starts with almost no environment variables. Before the first image it confines itself: the kernel refuses all system
calls except CALLS, such as those on its two pipes (seccomp(2)), and more than BYTES of address space (setrlimit(2)).
The worker (decoding.py) kills it when it takes too long. It reads requests from stdin and writes answers to stdout:

    request   >QQ   maximum number of pixels, length of the image file; then the image file
    answer    >Q    length of the header; then a JSON header, then pixels, alpha and ICC profile as the header says

It sends the first answer without a request: {}, or the reason why it could not confine itself.
"""

import ctypes
import errno
import io
import json
import mmap
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np
from PIL import AvifImagePlugin, Image

from upres.core.errors import ImageError, UndecodableImage
from upres.worker.imaging import images
from upres.worker.imaging.images import Picture

PR_SET_PDEATHSIG = 1
"""Option of prctl(2) that sets the signal which this process gets when its parent dies."""
MAX_SECONDS = 60
"""Seconds after which SIGALRM ends a decoder whose worker did not: the worker kills it after DECODE_SECONDS."""
CALLS = (
    *("read", "readv", "write", "writev"),  # only files that are open already: the two pipes
    *("munmap", "mremap", "brk", "madvise", "futex"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "alarm", "setitimer"),
    *("clock_gettime", "gettimeofday", "getrandom", "sched_yield"),
    *("fstat", "lseek", "restart_syscall", "exit", "exit_group"),
)
"""System calls that decoding needs, on x86-64 and ARM. mmap and mprotect are allowed as well, without PROT_EXEC."""

REQUEST = struct.Struct(">QQ")
"""Maximum number of pixels, and length of the image file in bytes."""
ANSWER = struct.Struct(">Q")
"""Length of the JSON header in bytes."""


def main() -> None:
    """Confine this process, then answer requests until stdin ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        confine(int(sys.argv[1]))
    except Exception as error:  # the machine lacks some part of the sandbox
        send(answers, {"unconfined": f"{type(error).__name__}: {error}"})
        return
    send(answers, {})
    while head := requests.read(REQUEST.size):
        most_pixels, length = REQUEST.unpack(head)
        signal.alarm(MAX_SECONDS)  # in case the worker cannot kill this process
        send(answers, *answer(requests.read(length), most_pixels))
        signal.alarm(0)


def send(answers: BinaryIO, header: dict[str, Any], parts: Iterable[Any] = ()) -> None:
    """Write one answer: the length of the header, the header, and the parts that it describes."""
    encoded = json.dumps(header).encode()
    answers.write(ANSWER.pack(len(encoded)) + encoded)
    for part in parts:
        answers.write(part)
    answers.flush()


def confine(memory: int) -> None:
    """Limit the address space to `memory` bytes, and refuse all system calls except CALLS.

    Decodes one image of each kind first, because afterwards no library can be loaded. Raises OSError or another error
    when this machine lacks a part of the sandbox.
    """
    Image.init()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    warnings.simplefilter("ignore")
    for kind in ("PNG", "JPEG", "WEBP"):
        example = io.BytesIO()
        Image.new("RGB", (1, 1)).save(example, kind)
        images.decode(example.getvalue(), 1)
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    if sys.platform == "linux":
        die_with_parent()
        refuse_calls()


def die_with_parent() -> None:
    """Let the kernel kill this process when its worker ends, in whatever way (prctl(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def refuse_calls() -> None:
    """Let all system calls except CALLS fail with EPERM in this process. This cannot be undone."""
    import pyseccomp as seccomp

    filter = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in CALLS:
        filter.add_rule(seccomp.ALLOW, name)
    for name in ("mmap", "mprotect"):
        filter.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, mmap.PROT_EXEC, 0))
    filter.set_attr(seccomp.Attr.CTL_TSYNC, 1)  # also for threads that run already
    filter.load()


def answer(data: bytes, most_pixels: int) -> tuple[dict[str, Any], list[Any]]:
    """Decode an image file. Returns the header of the answer and the parts that follow it."""
    try:
        picture = images.decode(data, most_pixels)
    except ImageError as error:
        return {"code": error.code, "message": str(error)}, []
    except MemoryError:
        message = "The image takes too much memory to decode; send a smaller one, or save it anew."
        return {"code": UndecodableImage.code, "message": message}, []
    return describe(picture)


def describe(picture: Picture) -> tuple[dict[str, Any], list[Any]]:
    """Return a picture as a header and its parts: pixels, alpha if any, ICC profile."""
    header = {
        "shape": picture.pixels.shape,
        "alpha": picture.alpha is not None,
        "gray": picture.gray,
        "icc": None if picture.icc is None else len(picture.icc),
        "format": picture.format,
    }
    planes = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
    return header, [*(np.ascontiguousarray(plane).data for plane in planes), picture.icc or b""]


if __name__ == "__main__":
    main()
