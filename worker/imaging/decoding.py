"""Decodes images from untrusted clients in confined child processes (decoder.py), and replaces children that fail."""

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from io import BufferedReader
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from upres.core.errors import ImageError, Unconfined, UndecodableImage, tree
from upres.core.formats import CONTENT_TYPES
from upres.worker.imaging.decoder import ANSWER, REQUEST
from upres.worker.imaging.images import MAX_ICC_BYTES, Picture

Pixels = npt.NDArray[np.uint8]

DECODE_SECONDS = 10.0
"""Time limit in seconds for one image. An image within the limits takes far less: the slowest decoder makes 50
megapixels a second."""
BASE_BYTES = 512 << 20
"""Address space in bytes of a child for Python and its libraries."""
BYTES_PER_PIXEL = 16
"""Address space in bytes for one pixel: the maximum, by measurement, that decoding and all conversions take."""
MAX_HEADER_BYTES = 1 << 16
"""Largest header in bytes that the worker accepts from a child, which may be compromised."""
MAX_MESSAGE = 300
"""Longest error message in characters that the worker accepts from a child."""
ERRORS = {kind.code: kind for kind in tree(ImageError)}
"""Error code in a child's answer → type of the error that the worker raises."""


class Decoders:
    """A pool of `count` children, for images of at most `most_pixels`. They start on first use, or all with `start`."""

    def __init__(self, count: int, most_pixels: int) -> None:
        self._memory = BASE_BYTES + BYTES_PER_PIXEL * most_pixels
        self._count = count
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)

    def start(self) -> None:
        """Start all children. Raises Unconfined when this machine lacks a part of their sandbox."""
        children = [_Child(self._memory) for _ in range(self._count)]
        for _ in children:
            self._idle.get()
        for child in children:
            self._idle.put(child)
        for child in children:
            child.greet()

    def decode(self, data: bytes, most_pixels: int) -> Picture:
        """Decode an image file in a child. Raises what images.decode raises, UndecodableImage or Unconfined."""
        child = self._idle.get()
        try:
            if child:
                try:
                    return child.decode(data, most_pixels)
                except UndecodableImage:
                    if child.is_alive() or child.timed_out:
                        raise
            # There was no child yet, or it died, perhaps for a reason that is not this image: try once with a new one.
            child = _Child(self._memory)
            return child.decode(data, most_pixels)
        finally:
            self._idle.put(child if child and child.is_alive() else None)

    def close(self) -> None:
        """Kill all idle children."""
        while not self._idle.empty():
            if child := self._idle.get():
                child.kill()


class _Child:
    """One child process. Methods are called from one thread at a time."""

    def __init__(self, memory: int) -> None:
        # The child must not get the worker's environment, which holds credentials and addresses.
        environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "upres.worker.imaging.decoder", str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            start_new_session=True,
        )
        self.timed_out = False
        self._memory = memory
        self._greeted = False
        assert self._process.stdin
        self._requests: IO[bytes] = self._process.stdin
        self._answers = cast(BufferedReader, self._process.stdout)

    def greet(self) -> None:
        """Wait until the child has confined itself. Raises Unconfined when it could not."""
        if self._greeted:
            return
        try:
            reason = self._header().get("unconfined")
        except (EOFError, ValueError) as error:
            reason = str(error)
        if reason is not None:
            self.kill()
            raise Unconfined(f"Images cannot be decoded safely on this machine: {reason}")
        self._greeted = True

    def decode(self, data: bytes, most_pixels: int) -> Picture:
        """Send a request and wait for the answer. Raises the error in the answer, or Unconfined.

        Raises UndecodableImage when there is no valid answer in time; then the child was killed.
        """
        timer = threading.Timer(DECODE_SECONDS, self._time_out)
        timer.start()
        try:
            return self._ask(data, most_pixels)
        except (ImageError, Unconfined):
            raise
        except Exception as error:
            # The rest of a broken answer would be read as the answer for the next image.
            self.kill()
            raise UndecodableImage(
                f"The image could not be decoded within {DECODE_SECONDS:g} seconds and "
                f"{self._memory >> 20} MiB; it may be damaged. Save it anew and send that."
            ) from error
        finally:
            timer.cancel()

    def _ask(self, data: bytes, most_pixels: int) -> Picture:
        self.greet()
        self._requests.write(REQUEST.pack(most_pixels, len(data)))
        self._requests.write(data)
        self._requests.flush()
        header = self._header()
        if "code" in header:
            raise ERRORS[header["code"]](str(header["message"])[:MAX_MESSAGE])
        return self._picture(header, most_pixels)

    def _header(self) -> dict[str, Any]:
        (length,) = ANSWER.unpack(self._read(ANSWER.size))
        header: dict[str, Any] = json.loads(self._read(_at_most(length, MAX_HEADER_BYTES)))
        return header

    def _time_out(self) -> None:
        self.timed_out = True
        self._process.kill()

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process, and close its pipes."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        with suppress(OSError):  # closing flushes what was not sent, which fails
            self._requests.close()

    def _picture(self, header: dict[str, Any], most_pixels: int) -> Picture:
        """Read the picture that the header describes.

        Raises ValueError when the header is not plausible, because a malicious image may control the child.
        """
        height, width, channels = header["shape"]
        if channels != 3 or not (height > 0 and width > 0 and height * width <= most_pixels):
            raise ValueError("the decoder made something else than it was asked for")
        if header["format"] not in CONTENT_TYPES:
            raise ValueError("the decoder named a format that there is not")
        icc = header["icc"]
        return Picture(
            self._plane((height, width, channels)),
            self._plane((height, width)) if header["alpha"] else None,
            bool(header["gray"]),
            None if icc is None else self._read(_at_most(icc, MAX_ICC_BYTES)),
            header["format"],
        )

    def _plane(self, shape: tuple[int, ...]) -> Pixels:
        """Read an array of bytes."""
        plane = np.empty(shape, np.uint8)
        self._fill(plane.data.cast("B"))
        return plane

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, target: memoryview) -> None:
        """Read until the target is full. Raises EOFError when the child ends before."""
        while target:
            got = self._answers.readinto(target)
            if not got:
                raise EOFError("the decoder died")
            target = target[got:]


def _at_most(length: int, most: int) -> int:
    """Return a length that a child announced. Raises ValueError when it is negative or too large."""
    if not 0 <= length <= most:
        raise ValueError("the decoder announced too much")
    return length
