"""boto3's clients of the object store: for writing, for reading with a shorter timeout, and for presigned URLs."""

import base64
import hashlib
import socket
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upres.core.certificates import Bundle
from upres.core.errors import SettingsError
from upres.core.link_credentials import LinkCredentials
from upres.core.settings import Settings

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

READ_SECONDS = 10.0
"""Longest silence of the store, in seconds, while something is read. Only a put may need longer: some stores answer it
when the file is on their disk."""
CONNECTIONS = 64
"""Connections that are kept for later requests: more than a process has threads that use the store. Others would be
closed after each request, and made again for the next one."""
KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPALIVE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Options of TCP (RFC 1122, 4.2.3.6; the second is macOS's name of the first): an idle connection is probed after 20
seconds, and closed after three probes, 5 seconds apart, without an answer."""

SMALL_BYTES = 1 << 16
"""A body up to this size is sent with its head. Before others botocore asks the store whether it wants the body
(`Expect: 100-continue`, RFC 9110, section 10.1.1), and waits for its answer: that takes a round trip."""


class S3Clients:
    """The clients of one store, each made when it is used first. Threads may share them."""

    def __init__(self, settings: Settings, session: "Session | None", timeout: float, attempts: int) -> None:
        self._session = session
        self._timeout = timeout
        self._attempts = attempts
        self._endpoint = settings.s3_endpoint_url
        self._public = settings.s3_public_url or self._endpoint
        self._ca_file = settings.ca_file

    @cached_property
    def writer(self) -> "S3Client":
        """The client that writes, and does all else. Raises SettingsError."""
        return self._open(self._endpoint, self._timeout)

    @cached_property
    def reader(self) -> "S3Client":
        """The client that reads."""
        return self.writer if self._timeout <= READ_SECONDS else self._open(self._endpoint, READ_SECONDS)

    @cached_property
    def signer(self) -> "S3Client":
        """The client that makes presigned URLs. A signature is valid for one host, so it uses the public address."""
        return self.writer if self._public == self._endpoint else self._open(self._public, self._timeout)

    @cached_property
    def credentials(self) -> LinkCredentials:
        """The credentials that sign links."""
        return LinkCredentials(self._opened)

    @cached_property
    def _opened(self) -> "Session":
        """The session, whose credentials all clients share."""
        import boto3

        return self._session or boto3.session.Session()

    @cached_property
    def _certificates(self) -> Bundle:
        """The certificates of botocore and of UPRES_CA_FILE; boto3 reads one file. Raises SettingsError."""
        from botocore.httpsession import get_cert_path

        try:
            return Bundle(*(Path(path) for path in (get_cert_path(True), self._ca_file) if path))
        except OSError as error:
            what = "a temporary file with it and the usual certificates cannot be written"
            raise SettingsError(f"UPRES_CA_FILE: {what} ({error.strerror}); set TMPDIR to another folder.") from error

    def _open(self, endpoint: str | None, timeout: float) -> "S3Client":
        # The import is here, because boto3 and a client take 0.2 s: more than the rest of the function's cold start.
        from botocore.config import Config

        config = Config(
            connect_timeout=2,
            read_timeout=timeout,
            tcp_keepalive=True,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            signature_version="s3v4",
            # Other stores than AWS send checksums with error answers, and botocore would raise a wrong error for them.
            # Some refuse those that botocore sends since 1.36, after the body (aws-chunked): Cloudflare R2, older ones.
            response_checksum_validation="when_required" if endpoint else "when_supported",
            request_checksum_calculation="when_required" if endpoint else "when_supported",
            # "virtual" also makes presigned URLs with the host of the region; the default is the global host.
            s3={"addressing_style": "path" if endpoint else "virtual"},
        )
        verify = self._certificates.path if self._ca_file else None  # None: what botocore does without
        client = self._opened.client("s3", endpoint_url=endpoint, config=config, verify=verify)
        untyped: Any = client
        # botocore can only switch keepalive on, and by default the first probe is sent after two hours.
        untyped._endpoint.http_session._socket_options.extend(
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in KEEPALIVE.items()
            if hasattr(socket, name)
        )
        client.meta.events.register_last("before-call.s3", _send_small_at_once)
        client.meta.events.register_last("before-call.s3.DeleteObjects", _with_md5)
        return client


def _with_md5(params: dict[str, Any], **_: Any) -> None:
    """Add Content-MD5, which S3's API required of DeleteObjects until 2022, and older stores still require."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


def _send_small_at_once(params: dict[str, Any], **_: Any) -> None:
    """Remove the question before a small body from a request that botocore has prepared (see SMALL_BYTES)."""
    from botocore.utils import determine_content_length

    length = determine_content_length(params.get("body"))
    if length is not None and length <= SMALL_BYTES:
        params["headers"].pop("Expect", None)
