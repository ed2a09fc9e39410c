"""Decodes images from untrusted clients, each in a confined process of its own (decoder.py)."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from upres.core.errors import ImageError, Unconfined, UndecodableImage, tree
from upres.core.foreign_text import printable
from upres.core.formats import CONTENT_TYPES, MAX_FRAMES, Holds
from upres.core.schema import WantedMetadata
from upres.core.sizes import AS_IT_IS, WantedSize
from upres.worker.imaging import examples
from upres.worker.imaging.decoder import AS_BEFORE, FIRST, FRAMES, METADATA, NUMBER, PAGES, REQUEST, SEVERAL
from upres.worker.imaging.fork_server import ForkServer, ServerDied
from upres.worker.imaging.metadata import MAX_BYTES, MAX_DPI, MAX_KEYWORD, MAX_TEXTS, NOTHING, Metadata
from upres.worker.imaging.picture import MAX_ICC_BYTES, MAX_PROFILES, Picture, Pictures
from upres.worker.imaging.raster import MAX_DURATION, MAX_NOTICES, MAX_PLAYS
from upres.worker.samples import Samples

DECODE_SECONDS = 10.0
"""Time limit in seconds for one image. An image within the limits takes far less: the slowest decoder makes 50
megapixels a second."""
BASE_BYTES = 512 << 20
"""Address space in bytes of a decoder for Python and its libraries."""
BYTES_PER_PIXEL = 56
"""Address space in bytes for one pixel: the maximum, by measurement, that decoding and all conversions take: 14 to 20
for 8 bits per channel, and 24 to 52 for 16, which AVIF and HEIC with alpha take."""
MAX_HEADER_BYTES = 1 << 16
"""Largest header in bytes that the worker accepts from a decoder, which may be compromised."""
ERRORS = {kind.code: kind for kind in tree(ImageError)}
"""Error code in a decoder's answer → type of the error that the worker raises."""


class Decoders:
    """Decodes images of at most `most_pixels`, at most `count` at a time. The fork server starts on first use."""

    def __init__(self, count: int, most_pixels: int) -> None:
        self._memory = BASE_BYTES + BYTES_PER_PIXEL * most_pixels
        self._places = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()
        self._server: ForkServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the fork server, and try it. Raises Unconfined when this machine lacks a part of the sandbox."""
        self.decode(examples.PNG, 1)

    def decode(
        self, data: bytes, most_pixels: int, wanted: WantedMetadata = "strip", size: WantedSize = AS_IT_IS
    ) -> Picture:
        """Decode the first frame or page of an image file. Raises what `decode_all` raises."""
        return self.decode_all(data, most_pixels, wanted, size, None).first

    def decode_all(
        self, data: bytes, most_pixels: int, wanted: WantedMetadata, size: WantedSize, holds: Holds | None
    ) -> Pictures:
        """Decode an image file in a process of its own, with the wanted metadata for a result of the wanted size.

        `holds`: which frames or pages the result can have; None: only the first is wanted. A process that dies may have
        been killed for a reason that is not the image, so it is tried a second time. Raises what images.decode_all
        raises, UndecodableImage, Unconfined or WorkerUnavailable.
        """
        which = SEVERAL | FRAMES * holds.frames | PAGES * holds.pages if holds else FIRST
        request = REQUEST.pack(most_pixels, len(data), METADATA.index(wanted), *size.packed(), which)
        with self._places:
            try:
                return self._decode_once(request, data, most_pixels)
            except (DecoderDied, ServerDied):
                pass
            try:
                return self._decode_once(request, data, most_pixels)
            except (DecoderDied, ServerDied) as error:
                raise self._undecodable() from error

    def close(self) -> None:
        """Kill the fork server, and all its processes."""
        with self._lock:
            if self._server:
                self._server.close()
            self._server = None

    def _decode_once(self, request: bytes, data: bytes, most_pixels: int) -> Pictures:
        """Decode an image file. Raises DecoderDied or ServerDied when a process ends before its answer is complete."""
        with self._conversation() as conversation:
            try:
                return conversation.decode(request, data, most_pixels)
            except (ImageError, Unconfined, DecoderDied):
                raise
            except Exception as error:  # it answers too late, or nonsense
                raise self._undecodable() from error

    def _undecodable(self) -> UndecodableImage:
        return UndecodableImage(
            f"The image could not be decoded within {DECODE_SECONDS:g} seconds and "
            f"{self._memory >> 20} MiB; it may be damaged. Save it anew and send that."
        )

    @contextmanager
    def _conversation(self) -> Iterator["_Conversation"]:
        """Give a new decoder for the block; then kill it. Starts another fork server if the last one has died."""
        with self._lock:
            if self._server and not self._server.is_alive():
                self._server.close()
                self._server = None
            self._server = self._server or ForkServer(self._memory)
            server = self._server
        try:
            decoder = server.fork()
        except ServerDied:
            server.close()
            raise
        try:
            yield _Conversation(decoder.connection)
        finally:
            server.end(decoder)


class DecoderDied(Exception):
    """A decoder ended before its answer was complete."""


class _Conversation:
    """The worker's side of the socket to one decoder. All of it takes at most DECODE_SECONDS."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + DECODE_SECONDS

    def decode(self, request: bytes, data: bytes, most_pixels: int) -> Pictures:
        """Send the request, and return the pictures in the answer.

        Raises the error in the answer, Unconfined, DecoderDied, TimeoutError, or others when the answer is not valid.
        """
        try:
            self._send(request)
            self._send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended; what it answered before says why
        header = self._header()
        if "unconfined" in header:
            reason = printable(str(header["unconfined"]))
            raise Unconfined(f"Images cannot be decoded safely on this machine: {reason}")
        if "code" in header:
            raise ERRORS[header["code"]](printable(str(header["message"])))
        return self._pictures(header, most_pixels)

    def _send(self, data: bytes) -> None:
        self._connection.settimeout(self._left())
        self._connection.sendall(data)

    def _left(self) -> float:
        """Return the seconds until the deadline. Raises TimeoutError when it has passed."""
        if (left := self._deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return left

    def _header(self) -> dict[str, Any]:
        (length,) = NUMBER.unpack(self._read(NUMBER.size))
        header: dict[str, Any] = json.loads(self._read(_at_most(length, MAX_HEADER_BYTES)))
        return header

    def _pictures(self, header: dict[str, Any], most_pixels: int) -> Pictures:
        """Read all pictures; the first header says how many there are. Raises ValueError as `_picture`."""
        count, durations = int(header.get("count", 1)), tuple(map(int, header.get("durations", ())))
        plays, left_out = int(header.get("plays", 0)), header.get("left_out")
        if not (1 <= count <= MAX_FRAMES and 0 <= plays <= MAX_PLAYS and left_out in (None, "frames", "pages")):
            raise ValueError("the decoder made more than it was asked for")
        if durations and (len(durations) != count or not all(0 <= one <= MAX_DURATION for one in durations)):
            raise ValueError("the decoder named impossible durations")
        frames = [self._picture(header, most_pixels)]
        limit = MAX_ICC_BYTES * count if durations else MAX_PROFILES  # those of an animation are one object
        while len(frames) < count:
            most_pixels -= frames[-1].size[0] * frames[-1].size[1]
            frames.append(self._picture(self._header(), most_pixels, frames[-1].icc))
            if frames[-1].metadata != NOTHING or sum(len(one.icc or b"") for one in frames) > limit:
                raise ValueError("the decoder sent more metadata than it was asked for")
        if durations and len({(one.pixels.shape, one.depth, one.channels, one.gray, one.icc) for one in frames}) > 1:
            raise ValueError("the frames of an animation differ in kind")
        return Pictures(tuple(frames), durations, plays, left_out, _notices(header.get("more_notices", [])))

    def _picture(self, header: dict[str, Any], most_pixels: int, icc_before: bytes | None = None) -> Picture:
        """Read the picture that the header describes; its profile may be that of the picture before.

        Raises ValueError when the header is not plausible, because a malicious image may control the decoder.
        """
        height, width, channels = header["shape"]
        if channels not in (3, 4) or not (height > 0 and width > 0 and height * width <= most_pixels):
            raise ValueError("the decoder made something else than it was asked for")
        if header["format"] not in CONTENT_TYPES:
            raise ValueError("the decoder named a format that there is not")
        icc = header["icc"]
        pixels: Samples = np.empty((height, width, channels), np.uint16 if header["depth"] == 16 else np.uint8)
        self._fill(pixels.data.cast("B"))
        profile = icc_before
        if icc != AS_BEFORE or icc_before is None:
            profile = None if icc is None else self._read(_at_most(icc, MAX_ICC_BYTES))
        metadata = self._metadata(header)
        return Picture(
            pixels,
            bool(header["gray"]),
            1 if header["channels"] == 1 else 3,
            profile,
            header["format"],
            bool(header["lossless"]),
            _notices(header["notices"]),
            metadata,
        )

    def _metadata(self, header: dict[str, Any]) -> Metadata:
        """Read the metadata that the header describes. Raises ValueError."""
        lengths = header["metadata"]
        exif, xmp, iptc, texts = (
            self._read(_at_most(lengths[name], most))
            for name, most in (("exif", MAX_BYTES), ("xmp", MAX_BYTES), ("iptc", MAX_BYTES), ("texts", 8 * MAX_BYTES))
        )
        return Metadata(exif, xmp, iptc, _dpi(header["dpi"]), _texts(json.loads(texts) if texts else []))

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, target: memoryview) -> None:
        """Read until the target is full. Raises DecoderDied when the decoder ends before, TimeoutError or OSError."""
        while target:
            self._connection.settimeout(self._left())
            try:
                got = self._connection.recv_into(target)
            except ConnectionResetError:  # it ended before it had read its request
                got = 0
            if not got:
                raise DecoderDied
            target = target[got:]


def _at_most(length: int, most: int) -> int:
    """Return a length that a decoder announced. Raises ValueError when it is negative or too large."""
    if not 0 <= length <= most:
        raise ValueError("the decoder announced too much")
    return length


def _notices(said: list[str]) -> tuple[str, ...]:
    """Return the sentences of a decoder, which may be compromised, bounded. Raises TypeError when they are none."""
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise TypeError("the decoder said something else than sentences")
    return tuple(printable(one) for one in said[:MAX_NOTICES])


def _dpi(stated: Any) -> tuple[float, float] | None:
    """Return the resolution in a header. Raises ValueError when no file can have it."""
    if stated is None:
        return None
    x, y = float(stated[0]), float(stated[1])
    if not (1 <= x <= MAX_DPI and 1 <= y <= MAX_DPI):
        raise ValueError("the decoder named an impossible resolution")
    return x, y


def _texts(stated: Any) -> tuple[tuple[str, str], ...]:
    """Return the texts that a decoder sent. Raises ValueError when a PNG file cannot have them."""
    texts = tuple((str(keyword), str(text)) for keyword, text in stated)
    for keyword, text in texts:
        text.encode()
        if not 0 < len(keyword.encode("latin-1")) <= MAX_KEYWORD:
            raise ValueError("the decoder sent an impossible keyword")
    if len(texts) > MAX_TEXTS:
        raise ValueError("the decoder sent too many texts")
    return texts
