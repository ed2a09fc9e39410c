"""The object store. Only this file, s3_clients.py and uploading.py use boto3, which is imported at the first call."""

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args
from urllib.parse import quote, urlsplit

from upres.core import keys
from upres.core.errors import SettingsError, StoreUnavailable, UpresError
from upres.core.s3_clients import S3Clients
from upres.core.settings import Settings
from upres.core.uploading import Place, Sender, Upload

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.response import StreamingBody
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef


log = logging.getLogger("upres.store")

Failure = Literal["refused", "no_answer"]
FAILURES: tuple[Failure, ...] = get_args(Failure)

REPEAT_SECONDS = 60
"""An error of the store that goes on is logged again after so long."""
CONDITION_FAILED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
"""What S3 answers to a conditional write whose condition does not hold, or that another write crossed (409). A number
is the status of an answer without a code."""
CONDITION_UNKNOWN = ("NotImplemented", "501")
"""What a store answers that knows no conditional writes."""


class ObjectNotFound(UpresError):
    """No object has this key. Callers catch it and raise an error that the user understands."""


class ObjectChanged(UpresError):
    """A conditional write was refused: the object is there already, or is not the one that was read any more."""


class ConditionUnknown(UpresError):
    """The store says that it knows no conditional writes."""


class Stored(NamedTuple):
    """An object as it was read: its bytes, and its ETag (RFC 9110, section 8.8.3), which names this content."""

    data: bytes
    etag: str


class Store:
    """One bucket of an S3-compatible object store. Instances may be shared by threads.

    Methods raise StoreUnavailable when the store does not answer or refuses a request, and SettingsError when
    credentials are missing. Credentials come from `session`, else from AWS's usual places. A request times out after
    `timeout` seconds without a byte (reads after READ_SECONDS at most), and is made `attempts` times at most.
    """

    def __init__(
        self, settings: Settings, session: "Session | None" = None, timeout: float = 30, attempts: int = 3
    ) -> None:
        self._session = session
        self._attempts = attempts
        self.settings = settings
        self.bucket = settings.s3_bucket
        self._s3 = S3Clients(settings, session, timeout, attempts)
        self._sender = Sender(lambda: self._s3.writer, self._mapped)
        self.failures: Counter[Failure] = Counter(dict.fromkeys(FAILURES, 0))
        self._logged: dict[str, float] = {}

    @property
    def host(self) -> str:
        """The name or address of the store's host."""
        return urlsplit(self._s3.writer.meta.endpoint_url).hostname or ""

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Store bytes under a key, and return the object's s3:// address."""
        with self._mapped(key):
            self._s3.writer.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=content_type)
        return self.uri(key)

    @contextmanager
    def upload(self, key: str, content_type: str = "application/octet-stream") -> Iterator[Upload]:
        """Give an Upload for the block, which writes an object and ends with `finish`; else nothing is stored."""
        upload = Upload(self._sender, Place(self.bucket, key, content_type))
        try:
            yield upload
        except BaseException:
            upload.abort()
            raise

    def put_if(self, key: str, data: bytes, etag: str | None) -> None:
        """Store a JSON document if the object still has this ETag; None: if no object has this key (RFC 9110).

        Not every store honours the condition; core/guarded_writes.py finds that out. Raises ObjectChanged when the
        condition does not hold.
        """
        condition: Any = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            with self._mapped(key):
                self._s3.writer.put_object(
                    Bucket=self.bucket, Key=key, Body=data, ContentType="application/json", **condition
                )
        except ObjectNotFound as error:  # with If-Match: it was deleted
            raise ObjectChanged(f"{self.uri(key)} was deleted meanwhile.") from error

    def get(self, key: str, limit: int | None = None, sha256: str | None = None) -> bytes:
        """Read an object; with `limit` at most limit + 1 bytes, so that the caller sees whether it is larger.

        A body that ends before its Content-Length is read again, as often as requests are made; so is one with another
        digest than `sha256` (hexadecimal), and the last one is returned as it is. Raises ObjectNotFound when there is
        no such object.
        """
        return self.read(key, limit, sha256).data

    def read(self, key: str, limit: int | None = None, sha256: str | None = None) -> Stored:
        """Read an object as `get` does, with its ETag."""
        from botocore.exceptions import BotoCoreError

        with self._mapped(key):
            attempt = 1
            while True:
                answer = self._s3.reader.get_object(Bucket=self.bucket, Key=key)
                try:
                    data = _read(answer["Body"], limit)
                    if sha256 is None or attempt >= self._attempts or hashlib.sha256(data).hexdigest() == sha256:
                        return Stored(data, answer.get("ETag", ""))
                    log.warning("object store: %s came with a wrong digest, and is read again", key)
                except BotoCoreError as error:
                    if attempt >= self._attempts:
                        raise
                    log.warning("object store: %s was cut off, and is read again (%s)", key, error)
                attempt += 1

    def exists(self, key: str) -> bool:
        """Whether an object has this key."""
        try:
            with self._mapped(key):
                self._s3.reader.head_object(Bucket=self.bucket, Key=key)
        except ObjectNotFound:
            return False
        return True

    def delete(self, objects: Sequence[str]) -> None:
        """Delete the objects with these keys, at most 1,000; missing objects are no error."""
        if objects:
            with self._mapped(objects[0]):
                listed: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in objects]
                self._s3.writer.delete_objects(Bucket=self.bucket, Delete={"Objects": listed, "Quiet": True})

    def listing(self, prefix: str) -> Iterator[str]:
        """Yield all keys that begin with the prefix, in alphabetical order."""
        with self._mapped(prefix):
            for page in self._s3.writer.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                yield from (one["Key"] for one in page.get("Contents", ()))

    def presign(self, key: str, file_name: str, seconds: int = keys.LINK_SECONDS) -> str:
        """Make a presigned URL: for `lasting(seconds)`, every client that has the URL can read the object.

        A browser shows the image, and saves it under `file_name` (RFC 6266, RFC 8187).
        """
        disposition = f"inline; filename*=UTF-8''{quote(file_name, safe='')}"
        parameters = {"Bucket": self.bucket, "Key": key, "ResponseContentDisposition": disposition}
        seconds = self.lasting(seconds)
        with self._mapped(key):
            return self._s3.signer.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)

    def presign_put(self, key: str, size: int, seconds: int = keys.UPLOAD_LINK_SECONDS) -> str:
        """Make a presigned URL, valid for `lasting(seconds)`, for a PUT of exactly `size` bytes."""
        parameters = {"Bucket": self.bucket, "Key": key, "ContentLength": size}
        seconds = self.lasting(seconds)
        with self._mapped(key):
            return self._s3.signer.generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)

    def lasting(self, seconds: int) -> int:
        """Return for how many of `seconds` a presigned URL works that is made now: not longer than the credentials.

        Sends no request to the store; temporary credentials that end earlier are renewed where they come from. Raises
        StoreUnavailable when they have ended and cannot be renewed.
        """
        with self._mapped(""):
            left = self._s3.credentials.lasting(seconds)
        if left < 1:
            raise StoreUnavailable("The credentials for the object store have expired; try again later.")
        if left < seconds:
            self._log("short links", f"links work for {left} s instead of {seconds} s, as the credentials do")
        return left

    def expiring(self) -> list[str] | None:
        """Return the prefixes that the bucket's lifecycle rules expire; None when the store does not answer that."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: Any = self._s3.writer.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        except ClientError as error:
            missing = error.response.get("Error", {}).get("Code") == "NoSuchLifecycleConfiguration"
            return [] if missing else None
        except BotoCoreError:
            return None
        if "Rules" not in answer:  # some stores answer with another document
            return None
        rules = [rule for rule in answer["Rules"] if rule["Status"] == "Enabled" and "Expiration" in rule]
        narrow = {"Tag", "Tags", "ObjectSizeGreaterThan", "ObjectSizeLessThan"}
        filters = [{"Prefix": rule.get("Prefix", ""), **rule.get("Filter", {})} for rule in rules]
        filters = [{**one, **one.get("And", {})} for one in filters]
        return [one["Prefix"] for one in filters if not narrow & one.keys()]

    def ping(self) -> None:
        """Check that the bucket answers. Raises StoreUnavailable when it does not."""
        with self._mapped(""):
            self._s3.reader.head_bucket(Bucket=self.bucket)

    def uri(self, key: str) -> str:
        """Return the s3:// address of a key."""
        return f"s3://{self.bucket}/{key}"

    def key(self, uri: str) -> str:
        """Return the key in an s3:// address of this bucket."""
        return uri.removeprefix(self.uri(""))

    @contextmanager
    def _mapped(self, key: str) -> Iterator[None]:
        """Convert boto3's errors to errors of upres; all calls of boto3 that may fail run inside of it."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if key and code in ("NoSuchKey", "404"):
                raise ObjectNotFound(f"There is no object {self.uri(key)}.") from error
            if code in CONDITION_FAILED:
                raise ObjectChanged(f"{self.uri(key)} was changed meanwhile.") from error
            if code in CONDITION_UNKNOWN:
                raise ConditionUnknown("The object store knows no conditional writes.") from error
            self.failures["refused"] += 1
            self._log(code, error)
            raise StoreUnavailable(f"The object store refused a request ({code}); try again later.") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise SettingsError("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: credentials are missing") from error
        except BotoCoreError as error:
            self.failures["no_answer"] += 1
            self._log(type(error).__name__, error)
            raise StoreUnavailable("The object store does not answer; try again in a few seconds.") from error

    def _log(self, kind: str, error: Exception | str) -> None:
        """Log an error, those of one kind once in REPEAT_SECONDS: a worker asks for labels every two seconds."""
        now = time.monotonic()
        if now - self._logged.get(kind, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._logged[kind] = now
            log.warning("object store: %s", error)


def _read(body: "StreamingBody", limit: int | None) -> bytes:
    """Read a body, up to limit + 1 bytes, and close it. Raises BotoCoreError when it ends early."""
    from botocore.exceptions import ResponseStreamingError
    from urllib3.exceptions import HTTPError

    pieces: list[bytes] = []
    with closing(body):
        try:
            # botocore compares length and checksum when it has read the end, which is an empty piece.
            while piece := body.read(None if limit is None else limit + 1 - sum(map(len, pieces))):
                pieces.append(piece)
        except HTTPError as error:  # botocore passes errors of TLS on as they are
            raise ResponseStreamingError(error=error) from error
    return b"".join(pieces)
