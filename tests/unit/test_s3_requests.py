"""What the requests to object stores say of checksums: to AWS what botocore says, to others what all of them know."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from upres.core import uploading
from upres.core.settings import Settings
from upres.core.storage import Store

OTHER = "https://store.example.org"
ANSWERS = {
    "CreateMultipartUpload": b"<r><UploadId>1</UploadId></r>",
    "CompleteMultipartUpload": b"<r><ETag>1</ETag></r>",
    "DeleteObjects": b"<DeleteResult/>",
}


class Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self) -> Iterator[bytes]:
        yield self._data


def requests_of(endpoint: str | None) -> tuple[Store, dict[str, Any]]:
    """A store whose requests are answered here, and the last request of each operation."""
    settings = Settings(s3_bucket="upres", s3_endpoint_url=endpoint)
    store, sent = Store(settings, boto3.session.Session("a", "b", region_name="us-east-1")), {}

    def before_send(request: Any, event_name: str, **_: Any) -> AWSResponse:
        operation = event_name.rpartition(".")[2]
        sent[operation] = request
        headers = HTTPHeaders()
        headers["ETag"] = "1"
        raw: Any = Body(ANSWERS.get(operation, b""))
        return AWSResponse(request.url, 200, headers, raw)

    untyped: Any = store._s3.writer
    untyped.meta.events.register("before-send.s3", before_send)
    return store, sent


def used(store: Store) -> None:
    store.put("a", b"x")
    store.delete(["a", "b"])
    with store.upload("c") as upload:
        upload.write(bytes(2 * uploading.PART_BYTES))
        upload.finish()


def test_other_stores_get_no_checksums_that_they_may_not_know() -> None:
    store, sent = requests_of(OTHER)
    used(store)
    for operation in ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"):
        headers = {name.lower() for name in sent[operation].headers}
        assert not [name for name in headers if "checksum" in name or name == "x-amz-trailer"], operation
        assert sent[operation].headers.get("Content-Encoding") is None, operation


@pytest.mark.parametrize("endpoint", [OTHER, None])
def test_a_deletion_of_several_objects_has_their_md5(endpoint: str | None) -> None:
    store, sent = requests_of(endpoint)
    used(store)
    request = sent["DeleteObjects"]
    body = request.body if isinstance(request.body, bytes) else request.body.read()
    assert request.headers["Content-MD5"] == base64.b64encode(hashlib.md5(body).digest())


def test_aws_gets_a_checksum_of_everything() -> None:
    store, sent = requests_of(None)
    used(store)
    for operation in ("PutObject", "UploadPart"):
        assert sent[operation].headers["x-amz-trailer"] == b"x-amz-checksum-crc32", operation
    assert sent["CreateMultipartUpload"].headers["x-amz-checksum-algorithm"] == b"CRC32"
