"""Uploads a file to the object store while it is made: in one PUT if it is small, else in parts (S3 multipart upload).

So a large file is never held whole, and at its end only the last part has to be sent.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from upres.core.errors import StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger("upres.store")

PART_BYTES = 8 << 20
"""Size of all parts but the last one: some stores want equal ones. S3 takes parts from 5 MiB, and 10,000 of them."""
PARTS_AHEAD = 3
"""Most parts of one file that are being sent. It limits memory when the store is slower than the encoder."""


class Upload:
    """One object that is being written. `write` may be called from one thread at a time.

    It does not exist before `finish`. Methods raise StoreUnavailable, also for parts that were sent meanwhile.
    """

    def __init__(
        self,
        client: "S3Client",
        mapped: Callable[[str], AbstractContextManager[None]],
        executor: Executor,
        place: tuple[str, str],
        content_type: str,
    ) -> None:
        self._client, self._mapped, self._executor = client, mapped, executor
        self._place: Any = {"Bucket": place[0], "Key": place[1]}
        self._content_type = content_type
        self._buffer = bytearray()
        self._id: Future[str] | None = None
        self._parts: list[Future[str]] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add bytes. Waits while PARTS_AHEAD parts are being sent."""
        self._size += len(data)
        self._buffer += data
        while len(self._buffer) > PART_BYTES:
            part = bytes(memoryview(self._buffer)[:PART_BYTES])
            del self._buffer[:PART_BYTES]
            self._send(part)

    def finish(self) -> None:
        """Send the rest. After that the object is in the store."""
        if self._id is None:
            with self._mapped(self._place["Key"]):
                self._client.put_object(**self._place, Body=bytes(self._buffer), ContentType=self._content_type)
            return
        self._send(bytes(self._buffer))
        tags = [part.result() for part in self._parts]
        listed: Any = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        try:
            with self._mapped(self._place["Key"]):
                self._client.complete_multipart_upload(
                    **self._place, UploadId=self._id.result(), MultipartUpload={"Parts": listed}
                )
        except StoreUnavailable:
            # Its answer may have been lost; the repeated request is then refused, because the upload has ended.
            if not self._is_stored():
                raise

    def abort(self) -> None:
        """Delete the parts that were sent. What cannot be deleted is deleted by the bucket's lifecycle rule."""
        self._buffer.clear()
        if self._id is None or self._id.exception():
            return
        for part in self._parts:
            part.cancel()
        for part in self._parts:
            if not part.cancelled():
                part.exception()  # a part that arrives after the abort would stay
        try:
            with self._mapped(self._place["Key"]):
                self._client.abort_multipart_upload(**self._place, UploadId=self._id.result())
        except StoreUnavailable as error:
            log.warning("parts of %s are left (%s)", self._place["Key"], error)

    def _send(self, part: bytes) -> None:
        if self._id is None:
            self._id = self._executor.submit(self._begin)
        self._parts.append(self._executor.submit(self._put, len(self._parts) + 1, part))
        for sent in self._parts[:-PARTS_AHEAD]:
            sent.result()

    def _begin(self) -> str:
        with self._mapped(self._place["Key"]):
            begun = self._client.create_multipart_upload(**self._place, ContentType=self._content_type)
        return begun["UploadId"]

    def _put(self, number: int, part: bytes) -> str:
        assert self._id
        upload_id = self._id.result()  # it was submitted before, so it does not wait for a thread
        with self._mapped(self._place["Key"]):
            sent = self._client.upload_part(**self._place, UploadId=upload_id, PartNumber=number, Body=part)
        return sent["ETag"]

    def _is_stored(self) -> bool:
        """Return whether the whole object is in the store: nobody else writes to its key."""
        try:
            with self._mapped(self._place["Key"]):
                return self._client.head_object(**self._place)["ContentLength"] == self._size
        except Exception:  # then the first error counts
            return False
