"""`python -m worker.imaging.decoder BYTES`: decode images that strangers sent, in a process that can do nothing else.

It starts without environment, and before the first image gives up what it could use: it may open no file or
socket, start no process, write no file, and have no more than so many BYTES of memory (setrlimit(2)). The
worker (decoding.py) kills it when it takes too long. Requests on stdin, answers on stdout:

    request   >QQ   pixels at most, length; then the image file
    answer    >Q    length; then a JSON header, then pixels, alpha and ICC profile as it says
"""

import ctypes
import io
import json
import resource
import signal
import struct
import sys
import warnings
from typing import Any

import numpy as np
from PIL import Image

from core.errors import ImageError, UndecodableImage
from worker.imaging import images
from worker.imaging.images import Picture

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
MOST_SECONDS = 60

REQUEST = struct.Struct(">QQ")
ANSWER = struct.Struct(">Q")


def main() -> None:
    """Answer until stdin ends."""
    confine(int(sys.argv[1]))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(REQUEST.size):
        most_pixels, length = REQUEST.unpack(head)
        signal.alarm(MOST_SECONDS)  # the worker is faster, if it lives
        header, parts = answer(requests.read(length), most_pixels)
        encoded = json.dumps(header).encode()
        answers.write(ANSWER.pack(len(encoded)) + encoded)
        for part in parts:
            answers.write(part)
        answers.flush()
        signal.alarm(0)


def confine(memory: int) -> None:
    """Give up everything but arithmetic. What is needed later has to be loaded before."""
    Image.init()
    warnings.simplefilter("ignore")
    for kind in ("PNG", "JPEG", "WEBP"):
        example = io.BytesIO()
        Image.new("RGB", (1, 1)).save(example, kind)
        images.decode(example.getvalue(), 1)
    _privileges()
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _privileges() -> None:
    """On Linux: no program may give more rights, and no decoder outlives its worker (prctl(2))."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, signal.SIGKILL)):
            if libc.prctl(option, value, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


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
