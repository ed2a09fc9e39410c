"""`python -m upres.worker.imaging.decoder BYTES`: forks a confined process for each image from an untrusted client.

This process, the fork server, has imported what decoding needs, has no threads and almost no environment variables, and
never sees a byte of an image. Before the first request it confines itself (sandbox.py): the kernel refuses it more than
BYTES of address space, and all system calls except those that it needs to fork. stdin is its connection to the worker
(fork_server.py), on which it first sends {}, or the reason why it could not confine itself; then it answers requests:

    request   >Q    0: fork; the socket that comes with it (SCM_RIGHTS) is the child's. Else the process id of a child
                    that ends, and is reaped
    answer    >Q    to 0 only: the process id of the child; 0 if the system could not make one

A child closes the connection to the worker, confines itself further, answers one request on its own socket, and ends.
So whoever takes a child over can reach neither the fork server nor the decoder of another image:

    request   >QQBB maximum number of pixels, length of the image file, position of the wanted metadata in METADATA,
                    factor of the enlargement; then the image file
    answer    >Q    length of the header; then a JSON header, then pixels, ICC profile and metadata as the header says
"""

import gc
import io
import json
import os
import socket
import struct
import sys
import warnings
from base64 import b64decode
from collections.abc import Iterable
from typing import Any, BinaryIO, NoReturn

from PIL import AvifImagePlugin, Image

from upres.core.errors import ImageError, UndecodableImage
from upres.core.schema import WantedMetadata
from upres.worker.imaging import images, sandbox
from upres.worker.imaging.picture import Picture

EXAMPLE = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
"""A PNG file with one pixel."""
STDIN = 0
NUMBER = struct.Struct(">Q")
"""A request to the fork server, its answer, and the length of a JSON header in bytes."""
REQUEST = struct.Struct(">QQBB")
"""Maximum number of pixels, length of the image file in bytes, wanted metadata, and factor."""
METADATA: tuple[WantedMetadata, ...] = ("strip", "keep", "keep-all")


def main() -> None:
    """Confine this process, then fork children until stdin ends."""
    worker = socket.socket(fileno=STDIN)
    try:
        child_filter = confine_server(int(sys.argv[1]))
    except Exception as error:  # the machine lacks some part of the sandbox
        worker.sendall(b"".join(packed(_unconfined(error))))
        return
    gc.freeze()  # the collector of a child must not write to, and so copy, the memory that it shares with this process
    worker.sendall(b"".join(packed({})))
    serve(worker, child_filter)


def confine_server(memory: int) -> Any:
    """Confine this process, and return the filter of system calls that its children apply to themselves.

    Decodes one image of each kind first, because afterwards no library can be loaded. Raises OSError or another error
    when this machine lacks a part of the sandbox.
    """
    Image.init()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    warnings.simplefilter("ignore")
    for kind in ("PNG", "JPEG", "WEBP"):
        example = io.BytesIO()
        Image.new("RGB", (1, 1)).save(example, kind)
        answer(example.getvalue(), 1)
    sandbox.limit_memory(memory)
    child_filter = sandbox.make_filter(sandbox.DECODER_CALLS)
    if own := sandbox.make_filter(sandbox.SERVER_CALLS, may_fork=True):
        own.load()
    return child_filter


def serve(worker: socket.socket, child_filter: Any) -> None:
    """Fork and reap children as the worker asks."""
    own_pid = os.getpid()
    while True:
        request, descriptors, _, _ = socket.recv_fds(worker, NUMBER.size, 1)
        if len(request) < NUMBER.size:  # the worker has closed the connection, or has ended
            return
        (ended,) = NUMBER.unpack(request)
        if ended:
            os.waitpid(ended, 0)
            continue
        try:
            pid = os.fork()
        except OSError:  # no memory, or too many processes
            pid = -1
        if pid == 0:
            run_child(descriptors[0], own_pid, child_filter)
        os.close(descriptors[0])
        worker.sendall(NUMBER.pack(max(0, pid)))


def run_child(descriptor: int, parent: int, child_filter: Any) -> NoReturn:
    """Confine this process further, decode the one image that comes over its socket, answer, and end."""
    try:
        os.dup2(descriptor, STDIN)  # this closes the connection to the worker
        os.close(descriptor)
        with open(STDIN, "rb", closefd=False) as requests, open(STDIN, "wb", closefd=False) as answers:
            try:
                confine_child(parent, child_filter)
            except Exception as error:
                send(answers, packed(_unconfined(error)))
            else:
                answer(EXAMPLE, 1)  # before the request: now the child gets its copies of the memory that decoding uses
                send(answers, reply(requests))
    finally:
        os._exit(0)


def confine_child(parent: int, child_filter: Any) -> None:
    """Refuse all system calls except DECODER_CALLS to this process. It ends with its parent."""
    sandbox.limit_time()
    if child_filter:
        sandbox.die_with(parent)
        child_filter.load()


def send(answers: BinaryIO, parts: Iterable[Any]) -> None:
    """Write the parts of one answer."""
    for part in parts:
        answers.write(part)
    answers.flush()


def packed(header: dict[str, Any], parts: Iterable[Any] = ()) -> list[Any]:
    """Return one answer as buffers: the length of the header, the header, and the parts that it describes."""
    encoded = json.dumps(header).encode()
    return [NUMBER.pack(len(encoded)), encoded, *parts]


def _unconfined(error: Exception) -> dict[str, Any]:
    return {"unconfined": f"{type(error).__name__}: {error}"}


def reply(requests: BinaryIO) -> list[Any]:
    """Read a request, and return the answer."""
    try:
        most_pixels, length, wanted, factor = REQUEST.unpack(requests.read(REQUEST.size))
        return answer(requests.read(length), most_pixels, METADATA[wanted], factor)
    except MemoryError:
        message = "The image takes too much memory to decode; send a smaller one, or save it anew."
        return packed({"code": UndecodableImage.code, "message": message})


def answer(data: bytes, most_pixels: int, wanted: WantedMetadata = "strip", factor: int = 1) -> list[Any]:
    """Decode an image file, and return the answer."""
    try:
        picture = images.decode(data, most_pixels, wanted, factor)
    except ImageError as error:
        return packed({"code": error.code, "message": str(error)})
    return describe(picture)


def describe(picture: Picture) -> list[Any]:
    """Return the answer with a picture: pixels, ICC profile, metadata."""
    kept = picture.metadata
    texts = json.dumps(kept.texts).encode() if kept.texts else b""
    parts = {"exif": kept.exif, "xmp": kept.xmp, "iptc": kept.iptc, "texts": texts}
    header = {
        "shape": picture.pixels.shape,
        "gray": picture.gray,
        "channels": picture.channels,
        "icc": None if picture.icc is None else len(picture.icc),
        "format": picture.format,
        "depth": picture.depth,
        "lossless": picture.lossless,
        "dpi": kept.dpi,
        "metadata": {name: len(part) for name, part in parts.items()},
    }
    return packed(header, [picture.pixels.data, picture.icc or b"", *parts.values()])


if __name__ == "__main__":
    main()
