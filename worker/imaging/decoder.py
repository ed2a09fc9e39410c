"""`python -m upres.worker.imaging.decoder BYTES`: decode images of strangers, in a process that can do nothing else.

It starts without environment, and before the first image gives up what it could use: the kernel refuses it every
call but those of arithmetic and of its two pipes (seccomp(2)), and more than so many BYTES of memory (setrlimit(2)).
The worker (decoding.py) kills it when it takes too long. Requests on stdin, answers on stdout:

    request   >QQ   pixels at most, length; then the image file
    answer    >Q    length; then a JSON header, then pixels, alpha and ICC profile as it says

The first answer comes unasked: {}, or why it could not give everything up.
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
MAX_SECONDS = 60
CALLS = (
    *("read", "readv", "write", "writev"),  # of what is open: the two pipes
    *("munmap", "mremap", "brk", "madvise", "futex"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "alarm", "setitimer"),
    *("clock_gettime", "gettimeofday", "getrandom", "sched_yield"),
    *("fstat", "lseek", "restart_syscall", "exit", "exit_group"),
)
"""Names of the system calls that decoding takes, on x86-64 and ARM; mmap and mprotect besides, without PROT_EXEC."""

REQUEST = struct.Struct(">QQ")
ANSWER = struct.Struct(">Q")


def main() -> None:
    """Answer until stdin ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        confine(int(sys.argv[1]))
    except Exception as error:  # whatever it is that this machine cannot do
        send(answers, {"unconfined": f"{type(error).__name__}: {error}"})
        return
    send(answers, {})
    while head := requests.read(REQUEST.size):
        most_pixels, length = REQUEST.unpack(head)
        signal.alarm(MAX_SECONDS)  # the worker is faster, if it lives
        send(answers, *answer(requests.read(length), most_pixels))
        signal.alarm(0)


def send(answers: BinaryIO, header: dict[str, Any], parts: Iterable[Any] = ()) -> None:
    """One answer: the length of the header, the header, what it announces."""
    encoded = json.dumps(header).encode()
    answers.write(ANSWER.pack(len(encoded)) + encoded)
    for part in parts:
        answers.write(part)
    answers.flush()


def confine(memory: int) -> None:
    """Give up everything but arithmetic. What is needed later has to be loaded before."""
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
    """No decoder outlives its worker, however that ends (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def refuse_calls() -> None:
    """All but CALLS fail with EPERM from now on, for this process and for good."""
    import pyseccomp as seccomp

    filter = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in CALLS:
        filter.add_rule(seccomp.ALLOW, name)
    for name in ("mmap", "mprotect"):
        filter.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, mmap.PROT_EXEC, 0))
    filter.set_attr(seccomp.Attr.CTL_TSYNC, 1)  # threads that there may be already
    filter.load()


def answer(data: bytes, most_pixels: int) -> tuple[dict[str, Any], list[Any]]:
    """The header and what follows it."""
    try:
        picture = images.decode(data, most_pixels)
    except ImageError as error:
        return {"code": error.code, "message": str(error)}, []
    except MemoryError:
        message = "The image takes too much memory to decode; send a smaller one, or save it anew."
        return {"code": UndecodableImage.code, "message": message}, []
    return describe(picture)


def describe(picture: Picture) -> tuple[dict[str, Any], list[Any]]:
    """A picture as header and bytes."""
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
