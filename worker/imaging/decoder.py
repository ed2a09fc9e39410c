"""`python -m upres.worker.imaging.decoder BYTES`: forks a confined process for each image from an untrusted client.

This process, the fork server, has imported what decoding needs, has no threads and almost no environment variables, and
never sees a byte of an image. Before the first request it confines itself (sandbox.py): the kernel refuses it more than
BYTES of address space, and all system calls except those that it needs to fork. stdin is its connection to the worker
(fork_server.py), on which it first sends {}, or the reason why it could not confine itself; then it answers requests:

    request   >Q    0: fork; the socket that comes with it (SCM_RIGHTS) is the child's. Else the process id of a child
                    that ends, and is reaped
    answer    >Q    to 0 only: the process id of the child; 0 if the system could not make one

A child closes the connection to the worker, reads one request on its own socket, confines itself further, answers, and
ends. For HEIC it may make threads, because libheif always makes one. So whoever takes a child over can reach neither
the fork server nor the decoder of another image:

    request   >QQBIIIBB maximum number of pixels, length of the image file, position of the wanted metadata in METADATA,
                        the wanted size: factor in ten-thousandths, width, height, each 0 if absent, 1 if exactly; FIRST
                        or what the result can hold; then the image file
    answer    >Q        length of the header; then a JSON header, then pixels, ICC profile and metadata as it says;
                        for each further frame or page the same again
"""

import gc
import json
import os
import socket
import struct
import sys
import warnings
from collections.abc import Iterable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, NoReturn

from PIL import AvifImagePlugin, Image

from upres.core.errors import ImageError, UndecodableImage
from upres.core.formats import Holds
from upres.core.schema import WantedMetadata
from upres.core.sizes import AS_IT_IS, WantedSize
from upres.worker.imaging import examples, images, sandbox
from upres.worker.imaging.kinds import kind_of
from upres.worker.imaging.picture import Picture, Pictures
from upres.worker.imaging.raster import MAX_NOTICE, MAX_NOTICES
from upres.worker.imaging.readers import tiff

STDIN = 0
MOST_DESCRIPTORS = 64
"""The fork server has fewer file descriptors than this."""
NUMBER = struct.Struct(">Q")
"""A request to the fork server, its answer, and the length of a JSON header in bytes."""
REQUEST = struct.Struct(">QQBIIIBB")
"""Maximum number of pixels, length of the image file in bytes, wanted metadata, wanted size, and FIRST or flags."""
FIRST, SEVERAL, FRAMES, PAGES = 0, 1, 2, 4
"""Only the first picture is wanted; or all that the result can hold: frames, pages, or both."""
AS_BEFORE = -1
"""In place of the length of an ICC profile: it is that of the picture before."""
METADATA: tuple[WantedMetadata, ...] = ("strip", "keep", "keep-all")


class Filters(NamedTuple):
    """The filters of system calls of the children, by the kind of their image; None outside of Linux."""

    heic: Any
    others: Any


def main() -> None:
    """Confine this process, then fork children until stdin ends."""
    worker = socket.socket(fileno=STDIN)
    try:
        filters = confine_server(int(sys.argv[1]))
    except Exception as error:  # the machine lacks some part of the sandbox
        worker.sendall(b"".join(packed(_unconfined(error))))
        return
    gc.freeze()  # the collector of a child must not write to, and so copy, the memory that it shares with this process
    worker.sendall(b"".join(packed({})))
    serve(worker, filters)


def confine_server(memory: int) -> Filters:
    """Confine this process, and return the filters of system calls that its children apply to themselves.

    Decodes one image of each kind first, because afterwards no library can be loaded. Raises OSError or another error
    when this machine lacks a part of the sandbox, or a library cannot read its example.
    """
    Image.init()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    warnings.simplefilter("ignore")
    for example in (examples.PNG, *examples.OTHERS.values()):
        images.decode(example, 1)
    tiff.load_codecs()
    sandbox.limit_memory(memory)
    threaded = (*sandbox.DECODER_CALLS, *sandbox.THREAD_CALLS)
    filters = Filters(sandbox.make_filter(threaded, may_thread=True), sandbox.make_filter(sandbox.DECODER_CALLS))
    if own := sandbox.make_filter(sandbox.SERVER_CALLS, may_fork=True, may_thread=True):
        own.load()
    return filters


def serve(worker: socket.socket, filters: Filters) -> None:
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
            run_child(descriptors[0], own_pid, filters)
        os.close(descriptors[0])
        worker.sendall(NUMBER.pack(max(0, pid)))


def run_child(descriptor: int, parent: int, filters: Filters) -> NoReturn:
    """Read the one image that comes over its socket, confine this process further, decode it, answer, and end."""
    try:
        os.dup2(descriptor, STDIN)  # this closes the connection to the worker
        os.closerange(STDIN + 3, MOST_DESCRIPTORS)  # the socket's first number; libffi 3.5 keeps its own file open
        with open(STDIN, "rb", closefd=False) as requests, open(STDIN, "wb", closefd=False) as answers:
            try:
                sandbox.limit_time()
                sandbox.die_with(parent)
            except OSError as error:
                send(answers, packed(_unconfined(error)))
            else:
                answer(examples.PNG, 1)  # now the child gets its copies of the memory that decoding uses
                send(answers, reply(requests, filters))
    finally:
        os._exit(0)


def confine_child(child_filter: Any) -> None:
    """Refuse all system calls except those of the filter to this process."""
    if child_filter:
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


def reply(requests: BinaryIO, filters: Filters) -> list[Any]:
    """Read a request, confine this process, and return the answer. Only the first bytes say which filter it gets."""
    try:
        most_pixels, length, wanted, *size, which = REQUEST.unpack(requests.read(REQUEST.size))
        data = requests.read(length)
        try:
            confine_child(filters.heic if kind_of(data) == "HEIC" else filters.others)
        except Exception as error:
            return packed(_unconfined(error))
        return answer(data, most_pixels, METADATA[wanted], WantedSize.unpacked(*size), which)
    except MemoryError:
        message = "The image takes too much memory to decode; send a smaller one, or save it anew."
        return packed({"code": UndecodableImage.code, "message": message})


def answer(
    data: bytes,
    most_pixels: int,
    wanted: WantedMetadata = "strip",
    size: WantedSize = AS_IT_IS,
    which: int = FIRST,
) -> list[Any]:
    """Decode an image file, and return the answer."""
    try:
        if which == FIRST:
            return describe(images.decode(data, most_pixels, wanted, size))
        holds = Holds(bool(which & FRAMES), bool(which & PAGES))
        return describe_all(images.decode_all(data, most_pixels, wanted, size, holds))
    except ImageError as error:
        return packed({"code": error.code, "message": str(error)})


def describe_all(pictures: Pictures) -> list[Any]:
    """Return the answer with all pictures of a file. The first header says what they are together."""
    together = {
        "count": len(pictures.frames),
        "durations": pictures.durations,
        "plays": pictures.plays,
        "left_out": pictures.left_out,
        "more_notices": pictures.more_notices,
    }
    first = pictures.first
    answer = describe(first, together)
    for before, one in pairwise(pictures.frames):
        answer += describe(one, {"icc": AS_BEFORE} if one.icc and one.icc == before.icc else {})
    return answer


def describe(picture: Picture, more: Mapping[str, Any] = MappingProxyType({})) -> list[Any]:
    """Return the answer with a picture: pixels, ICC profile, metadata. `more` is added to its header."""
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
        "notices": [notice[:MAX_NOTICE] for notice in picture.notices[:MAX_NOTICES]],
        "dpi": kept.dpi,
        "metadata": {name: len(part) for name, part in parts.items()},
        **more,
    }
    icc = b"" if header["icc"] in (None, AS_BEFORE) else picture.icc
    return packed(header, [picture.pixels.data, icc, *parts.values()])


if __name__ == "__main__":
    main()
