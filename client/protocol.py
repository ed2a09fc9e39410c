"""The requests of the client and the meaning of the responses; does no network I/O itself (sans I/O).

An operation is a generator of steps: it yields a request (Call) or a delay (Pause), and receives the response by
send(). Client (sdk.py) and AsyncClient (asynchronous.py) run the same operations, synchronously and with asyncio.
"""

import base64
import hashlib
import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from upres.client import environment
from upres.client.calls import Body, Call, OnBytes, Pause, Steps
from upres.client.environment import Verify
from upres.client.errors import RequestRefused
from upres.client.responses import (
    NO_ANSWER,
    RETRY_STATUSES,
    ImageCheck,
    Model,
    is_too_large_for_a_proxy,
    parsed,
    refused,
    retry_after,
    store_call,
    unreachable,
)
from upres.core.api import Estimate, JobAccepted, UploadLink
from upres.core.errors import NotAnImage, UpresError
from upres.core.schema import (
    Fit,
    OriginalMode,
    Result,
    Snapshot,
    WantedDepth,
    WantedFormat,
    WantedFrames,
    WantedMetadata,
)

Image = str | PathLike[str] | bytes
Which = Literal["result", "original"]
CONNECT_SECONDS = 5
"""Connect timeout in seconds: an unreachable server is noticed sooner than a slow response."""
INLINE_BYTES = 4_000_000
"""Larger files, in bytes, are uploaded by presigned URL. Lambda limits bodies to 6 MB; base64 adds a third."""
READ_SHARE = 0.8
"""Share of the response timeout for which a submission asks the server to wait."""
RECONNECT_SECONDS = 0.5
"""Delay before the first retry or reconnect, in seconds."""
MAX_BACKOFF = 8.0
"""Longest delay of the exponential backoff, in seconds."""
MAX_PAUSE = 60.0
"""Longest Retry-After, in seconds, that is waited for. For a longer one the error is raised at once."""


class JobOptions(TypedDict, total=False):
    """Optional fields of a job request besides image and factor; see JobRequest (core/api.py)."""

    output_width: int | None
    output_height: int | None
    fit: Fit
    model: str | None
    model_version: str | None
    strength: float | None
    output_format: WantedFormat
    output_depth: WantedDepth
    metadata: WantedMetadata
    priority: Literal["normal", "high"]
    deadline_seconds: float
    webhook_url: str | None
    preview: bool
    original: OriginalMode
    ensemble: bool
    quality: int | None
    lossless: bool | None
    frames: WantedFrames
    first_model: str | None


class EstimateOptions(TypedDict, total=False):
    """Optional fields of an estimate request besides size and factor; see EstimateRequest (core/api.py)."""

    output_width: int | None
    output_height: int | None
    fit: Fit
    bytes: int
    model: str | None
    model_version: str | None
    strength: float | None
    output_format: WantedFormat
    output_depth: WantedDepth
    ensemble: bool
    quality: int | None
    lossless: bool | None
    frames: WantedFrames
    frame_count: int
    first_model: str | None


class _Health(BaseModel):
    """The answer of /healthz."""

    status: Literal["ok"]


class ApiOperations:
    """The operations of the HTTP API, as generators that do no I/O.

    Operations raise ServerUnreachable, StoreUnreachable or RequestRefused, after `retries` retries if these may help.
    """

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)

    def __init__(self, url: str | None, api_key: str | None, retries: int, timeout: float, verify: Verify) -> None:
        self.url = environment.server_url(url)
        key = environment.api_key(api_key)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._retries = retries
        self._seconds = timeout
        self._verify = verify

    def connection_options(self) -> dict[str, Any]:
        """The keyword arguments for a client of httpx. Raises ClientSetupError."""
        return {
            "timeout": httpx.Timeout(self._seconds, connect=min(self._seconds, CONNECT_SECONDS)),
            "limits": self.limits,
            "verify": environment.ssl_context(self._verify),
        }

    def parts(self, call: Call) -> dict[str, Any]:
        """The keyword arguments of httpx for a request; adds the API key unless the request goes to the store."""
        own = {} if call.to_store or call.without_key else self._headers
        return {"json": call.json, "headers": {**own, **call.headers}}

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each attempt: 0 before the first, then exponential backoff with jitter."""
        yield 0.0
        for attempt in range(self._retries):
            yield min(MAX_BACKOFF, RECONNECT_SECONDS * 2**attempt) * random.uniform(0.5, 1)

    def submit(
        self,
        image: Image,
        factor: float | None,
        options: JobOptions,
        idempotency_key: str | None,
        wait: float,
        on_bytes: OnBytes,
    ) -> Steps[JobAccepted | Snapshot]:
        """Submit a job. Raises OSError when the path cannot be read, NotAnImage when the file is empty."""
        # A retry cannot create a second job: the request carries an Idempotency-Key.
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if wait:
            # The answer must come before this client stops waiting for it.
            headers["Prefer"] = f"wait={min(wait, self._seconds * READ_SHARE):.0f}"
        fields = yield from self._image_fields(image, on_bytes)
        call = Call("POST", f"{self.url}/v1/jobs", {**fields, **_factor(factor), **options}, headers=headers)
        try:
            response = yield from self._ask(call, httpx.codes.OK, httpx.codes.ACCEPTED)
        except RequestRefused as error:
            if not is_too_large_for_a_proxy(error) or "image_base64" not in fields:
                raise
            key = yield from self.upload(base64.b64decode(fields.pop("image_base64")), on_bytes)
            call = replace(call, json={**fields, "image_key": key, **_factor(factor), **options})
            response = yield from self._ask(call, httpx.codes.OK, httpx.codes.ACCEPTED)
        kind: type[JobAccepted | Snapshot] = Snapshot if response.status_code == httpx.codes.OK else JobAccepted
        return parsed(kind, call, response)

    def upload(self, data: bytes, on_bytes: OnBytes) -> Steps[str]:
        """Upload a file by presigned URL; returns its `image_key`."""
        link = yield from self._read(UploadLink, "POST", "/v1/uploads", _about(data))
        headers = {"Content-Length": str(len(data))}
        put = replace(store_call("PUT", link.upload_url), content=Body(data, on_bytes), headers=headers)
        yield from self._ask(put, httpx.codes.OK, httpx.codes.CREATED, httpx.codes.NO_CONTENT)
        return link.image_key

    def estimate(self, width: int, height: int, factor: float | None, options: EstimateOptions) -> Steps[Estimate]:
        """Ask for the result size, tiles and expected seconds of an image of width × height pixels."""
        fields = {"width": width, "height": height, **_factor(factor), **options}
        return self._read(Estimate, "POST", "/v1/estimate", fields)

    def status(self, job_id: str) -> Steps[Snapshot]:
        """Read the current state of a job."""
        return self._read(Snapshot, "GET", _path(job_id))

    def cancel(self, job_id: str) -> Steps[Snapshot]:
        """Cancel a job; returns its state afterwards."""
        return self._read(Snapshot, "DELETE", _path(job_id))

    def download(self, job: str | Result, which: Which) -> Steps[bytes]:
        """Download the result (or the bicubic enlargement, `original`) of a finished job."""
        call = yield from self.link(job, which)
        response = yield from self._ask(call, httpx.codes.OK)
        check = ImageCheck(call, response)
        data = check.feed(response.content) if response.content else b""
        check.end()
        return data

    def link(self, job: str | Result, which: Which) -> Steps[Call]:
        """The GET request to the store for an image of a job; its presigned URL is taken from the Result if given.

        An original that is not made yet is made first, which takes some seconds.
        """
        if isinstance(job, Result):
            call = store_call("GET", job.sr_image_url if which == "result" else job.original_image_url)
            if which == "result" or job.original != "lazy":
                return call
            call = replace(call, to_store=False, without_key=True)
        else:
            call = Call("GET", f"{self.url}{_path(job)}/{which}")
        if which == "original":  # it may have to be made first; the answer must come before this client gives up
            call = replace(call, headers={"Prefer": f"wait={self._seconds * READ_SHARE:.0f}"})
        response = yield from self._ask(call, httpx.codes.FOUND)
        return store_call("GET", response.headers.get("Location", ""))

    def check(self) -> Steps[None]:
        """Check that the server answers, and is upres. Raises ServerUnreachable when it does not."""
        call = Call("GET", f"{self.url}/healthz")
        try:
            response: httpx.Response = yield call
        except NO_ANSWER as error:
            raise unreachable(call, error) from error
        if response.status_code != httpx.codes.OK:
            raise refused(call, response)
        parsed(_Health, call, response)

    def events(self, job_id: str, after: str | None) -> Call:
        """The request for the event stream of a job, resuming after the event id `after`."""
        headers = {"Last-Event-ID": after} if after else {}
        return Call("GET", f"{self.url}{_path(job_id)}/events", headers=headers)

    def _image_fields(self, image: Image, on_bytes: OnBytes) -> Steps[dict[str, str]]:
        """The request fields for an image: its URL, its key in the store after an upload, or its bytes in base64."""
        if isinstance(image, str) and "://" in image:
            return {"image_url": image}
        data, name = (image, {}) if isinstance(image, bytes) else _file(Path(image))
        if not data:
            raise NotAnImage("The image is empty." if isinstance(image, bytes) else f"The file {image} is empty.")
        if len(data) > INLINE_BYTES:
            return {"image_key": (yield from self.upload(data, on_bytes)), **name}
        return {"image_base64": base64.b64encode(data).decode(), **name}

    def _read(self, model: type[Model], method: str, path: str, json: object = None) -> Steps[Model]:
        call = Call(method, self.url + path, json)
        response = yield from self._ask(call, httpx.codes.OK, httpx.codes.CREATED)
        return parsed(model, call, response)

    def _ask(self, call: Call, *expected: int) -> Steps[httpx.Response]:
        """Send a request; retry it with backoff, or after Retry-After. Raises the error when no attempt succeeds.

        A status other than those expected is not an answer of upres.
        """
        asked = 0.0
        for pause in self.pauses():
            if pause:
                yield Pause(max(pause, asked))
            try:
                response: httpx.Response = yield call
            except NO_ANSWER as error:
                failure: UpresError = unreachable(call, error)
                asked, is_passing = 0.0, failure.retryable
            else:
                if response.status_code in expected:
                    return response
                failure = refused(call, response)
                asked = retry_after(response)
                is_passing = response.status_code in RETRY_STATUSES and asked <= MAX_PAUSE
            if not is_passing:
                raise failure
        raise failure


def noop(*news: object) -> None:
    """Do nothing; the default callback."""


def _factor(factor: float | None) -> dict[str, float]:
    """The field of the factor; without one the server takes the size in the options, or its default, 4."""
    return {} if factor is None else {"upscale_factor": factor}


def _about(data: bytes) -> dict[str, object]:
    """What an upload says of its file; by the digest the server knows a repeated upload for an Idempotency-Key."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _path(job_id: str) -> str:
    """The path of a job, below that of the server also with `../..` for an id: the API key is for upres only."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _file(path: Path) -> tuple[bytes, dict[str, str]]:
    return path.read_bytes(), {"image_name": path.name.encode(errors="replace").decode()}
