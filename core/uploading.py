"""Uploads a file to the object store while it is made: in one PUT if it is small, else in parts (S3 multipart upload).

So a large file is never held whole, and at its end only the last part has to be sent. s3transfer, the library below
boto3's upload_fileobj, sends the parts; it reads the file from a pipe.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from upres.core.errors import StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3transfer.futures import TransferFuture
    from s3transfer.manager import TransferManager

PART_BYTES = 8 << 20
"""Size of all parts but the last one: some stores want equal ones. S3 takes parts from 5 MiB, and 10,000 of them."""
PARTS_IN_MEMORY = 12
"""Most parts of all files of a process that are in memory while they are sent."""
AT_ONCE = 64
"""Most files that are sent in parts at once, at least the slots of a worker: a transfer holds a thread while it waits
for bytes."""


class Place(NamedTuple):
    """Where an object is written, and what it is."""

    bucket: str
    key: str
    content_type: str


class Sender:
    """Sends files to one object store. `mapped` converts boto3's errors. Threads may share it."""

    def __init__(self, client: Callable[[], "S3Client"], mapped: Callable[[str], AbstractContextManager[None]]) -> None:
        self._client, self.mapped = client, mapped

    @cached_property
    def client(self) -> "S3Client":
        """The client that writes."""
        return self._client()

    @cached_property
    def manager(self) -> "TransferManager":
        """The threads that send parts."""
        from s3transfer.manager import TransferConfig, TransferManager

        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_in_memory_upload_chunks=PARTS_IN_MEMORY,
            max_request_concurrency=PARTS_IN_MEMORY,
            max_submission_concurrency=AT_ONCE,
        )
        return TransferManager(self.client, config=config)


class Upload:
    """One object that is being written. `write` may be called from one thread at a time.

    The object does not exist before `finish`. Methods raise StoreUnavailable, also for what was sent meanwhile.
    """

    def __init__(self, sender: Sender, place: Place) -> None:
        self._sender, self._place = sender, place
        self._begun: list[bytes] = []
        self._pipe: Pipe | None = None
        self._transfer: TransferFuture | None = None
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add bytes. Waits while the pipe is full."""
        self._size += len(data)
        if self._pipe is None:
            self._begun.append(data)
            if self._size > PART_BYTES:
                self._begin()
        elif self._has_failed() or not self._pipe.write(data):
            self._pipe.stop()
            self._result()
            raise StoreUnavailable("The object store ended an upload before all was sent.")

    def finish(self) -> None:
        """Send the rest. After that the object is in the store."""
        bucket, key, content_type = self._place
        if self._pipe is None:
            with self._sender.mapped(key):
                self._sender.client.put_object(
                    Bucket=bucket, Key=key, Body=b"".join(self._begun), ContentType=content_type
                )
            return
        self._pipe.close()
        try:
            self._result()
        except StoreUnavailable:
            # The answer to the last request may have been lost; repeated, it is refused, because the upload has ended.
            if not self._is_stored():
                raise

    def abort(self) -> None:
        """Store nothing. The transfer deletes what it sent; what it cannot delete, the bucket's lifecycle rule does."""
        self._begun.clear()
        if self._pipe and self._transfer:
            self._pipe.stop()
            self._transfer.cancel()
            try:
                self._result()
            except Exception:  # it was cancelled, or failed before
                return

    def _begin(self) -> None:
        from s3transfer.subscribers import BaseSubscriber

        pipe = self._pipe = Pipe()
        bucket, key, content_type = self._place

        class Ends(BaseSubscriber):
            def on_done(self, future: "TransferFuture", **_: Any) -> None:
                pipe.stop()  # else a transfer that failed would leave `write` waiting

        file: Any = pipe  # s3transfer needs no more of it than `read`
        self._transfer = self._sender.manager.upload(file, bucket, key, {"ContentType": content_type}, [Ends()])
        pipe.write(b"".join(self._begun))
        self._begun.clear()

    def _has_failed(self) -> bool:
        """Return whether a part was refused, although the transfer still waits for others."""
        return self._transfer is not None and self._transfer.done()

    def _result(self) -> None:
        """Wait for the transfer. Raises StoreUnavailable."""
        assert self._transfer
        with self._sender.mapped(self._place.key):
            self._transfer.result()

    def _is_stored(self) -> bool:
        """Return whether the whole object is in the store: nobody else writes to its key."""
        try:
            with self._sender.mapped(self._place.key):
                found = self._sender.client.head_object(Bucket=self._place.bucket, Key=self._place.key)
        except Exception:  # then the first error counts
            return False
        return found["ContentLength"] == self._size


class Stopped(Exception):
    """The file will not be written to its end."""


class Pipe:
    """Bytes from one thread to another; holds PART_BYTES, and what `write` adds at last."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self._size = 0
        self._closed = self._stopped = False
        self._changed = threading.Condition()

    def write(self, data: bytes) -> bool:
        """Add bytes, as soon as there is room. Returns False when nobody reads any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < PART_BYTES or self._stopped)
            self._pieces.append(data)
            self._size += len(data)
            self._changed.notify_all()
            return not self._stopped

    def read(self, size: int = -1) -> bytes:
        """Wait for `size` bytes, or for the end, and return them. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._stopped or 0 <= size <= self._size)
            if self._stopped:
                raise Stopped
            taken = list(self._taken(self._size if size < 0 else min(size, self._size)))
            self._changed.notify_all()
        return b"".join(taken)

    def close(self) -> None:
        """There are no more bytes."""
        self._end(stopped=False)

    def stop(self) -> None:
        """The file will not be written to its end, or nobody reads it any more."""
        self._end(stopped=True)

    def _taken(self, size: int) -> Iterator[bytes | memoryview]:
        """Remove pieces from the front, of so many bytes together."""
        self._size -= size
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(memoryview(piece)[size:])
                piece = memoryview(piece)[:size]
            size -= len(piece)
            yield piece

    def _end(self, stopped: bool) -> None:
        with self._changed:
            self._closed, self._stopped = True, self._stopped or stopped
            self._changed.notify_all()
