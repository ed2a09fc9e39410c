"""Large files are sent to the store in parts while they are made: real S3, and requests that fail on purpose."""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError

from tests.service.test_storage import behind
from upres.core import keys, uploading
from upres.core.errors import StoreUnavailable
from upres.core.storage import Store
from upres.embedded.stack import Local

SIZE = uploading.PART_BYTES


@pytest.fixture
def key(local: Local) -> Iterator[str]:
    key = keys.result(None, secrets.token_hex(16), 1, "png")
    yield key
    local.store.delete([key])


def pieces(size: int) -> Iterator[bytes]:
    """Random bytes in pieces of several lengths."""
    data = secrets.token_bytes(size)
    step = max(1, size // 7 + 1)
    for begin in range(0, size, step):
        yield data[begin : begin + step]


def sent(store: Store, key: str, size: int) -> bytes:
    """Send a file of `size` bytes, and return it."""
    whole = []
    with store.upload(key, "image/png") as upload:
        for piece in pieces(size):
            upload.write(piece)
            whole.append(piece)
        upload.finish()
    return b"".join(whole)


def unfinished(store: Store) -> list[Any]:
    answer: Any = store._s3.writer.list_multipart_uploads(Bucket=store.bucket)
    return list(answer.get("Uploads", []))


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE, 5 * SIZE + 17])
def test_what_was_written_is_stored_whatever_its_size(local: Local, key: str, size: int) -> None:
    data = sent(local.store, key, size)
    assert local.store.get(key) == data
    answer = requests.get(local.store.presign(key, "a.png"), timeout=20)
    assert answer.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("size", [10, 3 * SIZE])
def test_a_file_that_is_not_finished_is_not_stored(local: Local, key: str, size: int) -> None:
    def stopped() -> None:
        with local.store.upload(key, "image/png") as upload:
            upload.write(bytes(size))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopped()
    assert not local.store.exists(key)
    assert unfinished(local.store) == []


Fault = Literal["refused", "no answer", "answer lost"]


def fail(store: Store, operation: str, faults: Sequence[Fault]) -> list[str]:
    """Let the first requests of an operation fail so. Returns the list in which all that are sent are noted."""
    left, seen, client = list(faults), [], store._s3.writer
    untyped: Any = client

    def before_send(request: Any, **_: Any) -> Any:
        seen.append(operation)
        if not left:
            return None
        fault = left.pop(0)
        if fault == "refused":
            return AWSResponse(request.url, 503, HTTPHeaders(), Answered())
        if fault == "answer lost":
            untyped._endpoint.http_session.send(request)
        raise ConnectionClosedError(endpoint_url=request.url)

    client.meta.events.register(f"before-send.s3.{operation}", before_send)
    return seen


class Answered:
    """The body of an answer without one."""

    def stream(self) -> Iterator[bytes]:
        return iter([])


OPERATIONS = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")


@pytest.mark.parametrize("fault", get_args(Fault))
@pytest.mark.parametrize("operation", [*OPERATIONS, "PutObject"])
def test_a_request_that_fails_once_is_repeated(local: Local, key: str, operation: str, fault: Fault) -> None:
    """The end of an upload, too, whose answer was lost: the store then knows the upload no more."""
    store = behind(local, str(local.settings.s3_endpoint_url))
    seen = fail(store, operation, [fault])
    size = 10 if operation == "PutObject" else 2 * SIZE
    assert sent(store, key, size) == store.get(key)
    assert len(seen) > 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_that_goes_on_to_fail_stores_nothing_and_keeps_no_parts(local: Local, key: str, operation: str) -> None:
    store = behind(local, str(local.settings.s3_endpoint_url), attempts=2)
    fail(store, operation, ["refused"] * 20)
    with pytest.raises(StoreUnavailable):
        sent(store, key, 9 * SIZE)
    assert not store.exists(key)
    assert [one["Key"] for one in unfinished(store) if one["Key"] == key] == []


def test_a_refused_upload_is_noticed_before_the_end_of_the_file(local: Local, key: str) -> None:
    store = behind(local, str(local.settings.s3_endpoint_url), attempts=1)
    fail(store, "CreateMultipartUpload", ["refused"] * 9)

    def written_for_ever() -> None:
        with store.upload(key, "image/png") as upload:
            for _ in range(1000):
                upload.write(bytes(SIZE // 2))

    with pytest.raises(StoreUnavailable):
        written_for_ever()


def test_an_upload_that_was_ended_by_another_is_no_success(local: Local, key: str) -> None:
    """Its parts are gone: a lifecycle rule deleted them, or an operator."""
    store = behind(local, str(local.settings.s3_endpoint_url), attempts=1)
    other: Any = local.store._s3.writer

    def end(request: Any, **_: Any) -> None:
        [upload] = parse_qs(urlsplit(request.url).query)["uploadId"]
        other.abort_multipart_upload(Bucket=store.bucket, Key=key, UploadId=upload)

    untyped: Any = store._s3.writer
    untyped.meta.events.register("before-send.s3.CompleteMultipartUpload", end)
    with pytest.raises(StoreUnavailable):
        sent(store, key, 2 * SIZE + 1)
    assert not store.exists(key)
