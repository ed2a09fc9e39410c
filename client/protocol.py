"""The requests of the client and the meaning of the responses; does no network I/O itself (sans I/O).

An operation is a generator of steps: it yields a request (Call) or a delay (Pause), and receives the response by
send(). Client (sdk.py) and AsyncClient (asynchronous.py) run the same operations, synchronously and with asyncio.
"""

import base64
import os
import random
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from upres.client.errors import RequestRefused, ServerUnreachable, StoreUnreachable
from upres.core.api import Estimate, JobAccepted, Problem, UploadLink
from upres.core.errors import UpresError
from upres.core.schema import Result, Snapshot, WantedFormat

Model = TypeVar("Model", bound=BaseModel)
Answer = TypeVar("Answer")
Image = str | PathLike[str] | bytes
OnBytes = Callable[[int, int], None]
"""Upload callback: called with (bytes sent, bytes in total) after each piece."""

DEFAULT_URL = "http://127.0.0.1:8000"
Which = Literal["result", "original"]
CONNECT_SECONDS = 5
"""Connect timeout in seconds: an unreachable server is noticed sooner than a slow response."""
INLINE_BYTES = 4_000_000
"""Larger files, in bytes, are uploaded by presigned URL. Lambda limits bodies to 6 MB; base64 adds a third."""
PIECE_BYTES = 1 << 16
"""Size in bytes of the pieces of uploads and downloads."""
RECONNECT_SECONDS = 0.5
"""Delay before the first retry or reconnect, in seconds."""
MAX_BACKOFF = 8.0
"""Longest delay of the exponential backoff, in seconds."""
MAX_PAUSE = 60.0
"""Longest Retry-After, in seconds, that is waited for. For a longer one the error is raised at once."""
RETRY_STATUSES = {429, 502, 503, 504}
"""HTTP statuses after which the same request is retried: it may succeed soon."""


class JobOptions(TypedDict, total=False):
    """Optional fields of a job request besides image and factor; see JobRequest (core/api.py)."""

    model: str | None
    model_version: str | None
    output_format: WantedFormat
    priority: Literal["normal", "high"]
    deadline_seconds: float
    webhook_url: str | None
    preview: bool


class EstimateOptions(TypedDict, total=False):
    """Optional fields of an estimate request besides size and factor; see EstimateRequest (core/api.py)."""

    bytes: int
    model: str | None
    model_version: str | None
    output_format: WantedFormat


class Body:
    """The body of an upload, in pieces of PIECE_BYTES, for the synchronous and the asyncio client."""

    def __init__(self, data: bytes, on_bytes: OnBytes) -> None:
        self._data, self._on_bytes = data, on_bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield all pieces in order; call `on_bytes` after each of them."""
        for start in range(0, len(self._data), PIECE_BYTES):
            piece = self._data[start : start + PIECE_BYTES]
            yield piece
            self._on_bytes(start + len(piece), len(self._data))

    async def pieces_async(self) -> AsyncIterator[bytes]:
        """The same as `pieces`, as an asynchronous iterator."""
        for piece in self.pieces():
            yield piece


@dataclass(frozen=True)
class Call:
    """One HTTP request that an operation asks its client to send."""

    method: str
    url: str
    json: object = None
    content: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    to_store: bool = False
    """Whether the request goes to the object store. It then carries no API key: the store must not see it."""


class Pause(NamedTuple):
    """A step that asks the client to wait before the next step."""

    seconds: float


Steps = Generator[Call | Pause, Any, Answer]
"""An operation. It yields Call and Pause steps, receives a response for each Call and None after each Pause."""


class ApiOperations:
    """The operations of the HTTP API, as generators that do no I/O.

    Operations raise ServerUnreachable, StoreUnreachable or RequestRefused, after `retries` retries if these may help.
    """

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)

    def __init__(self, url: str | None, api_key: str | None, retries: int) -> None:
        url = url or os.environ.get("UPRES_URL") or DEFAULT_URL
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        key = api_key or os.environ.get("UPRES_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._retries = retries

    @staticmethod
    def timeout(seconds: float) -> httpx.Timeout:
        """Timeouts of a request, in seconds; the connect timeout is at most CONNECT_SECONDS."""
        return httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))

    def parts(self, call: Call) -> dict[str, Any]:
        """The keyword arguments of httpx for a request; adds the API key unless the request goes to the store."""
        own = {} if call.to_store else self._headers
        return {"json": call.json, "headers": {**own, **call.headers}}

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each attempt: 0 before the first, then exponential backoff with jitter."""
        yield 0.0
        for attempt in range(self._retries):
            yield min(MAX_BACKOFF, RECONNECT_SECONDS * 2**attempt) * random.uniform(0.5, 1)

    @staticmethod
    def stream_error(call: Call, response: httpx.Response) -> Exception:
        """The exception for an error response to a stream request; a transport error if a retry may help."""
        if response.status_code in RETRY_STATUSES:
            return httpx.RemoteProtocolError(f"{response.status_code} {response.reason_phrase}")
        return refused(call, response)

    def submit(
        self,
        image: Image,
        factor: int,
        options: JobOptions,
        idempotency_key: str | None,
        wait: float,
        on_bytes: OnBytes,
    ) -> Steps[JobAccepted | Snapshot]:
        """Submit a job. Raises FileNotFoundError when the path does not exist."""
        # A retry cannot create a second job: the request carries an Idempotency-Key.
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if wait:
            headers["Prefer"] = f"wait={wait:.0f}"
        body = {**(yield from self._image_fields(image, on_bytes)), "upscale_factor": factor, **options}
        response = yield from self._ask(Call("POST", f"{self.url}/v1/jobs", json=body, headers=headers))
        kind: type[JobAccepted | Snapshot] = Snapshot if response.status_code == httpx.codes.OK else JobAccepted
        return kind.model_validate_json(response.content)

    def upload(self, data: bytes, on_bytes: OnBytes) -> Steps[str]:
        """Upload a file by presigned URL; returns its `image_key`."""
        link = yield from self._read(UploadLink, "POST", "/v1/uploads", {"bytes": len(data)})
        headers = {"Content-Length": str(len(data))}
        put = Call("PUT", link.upload_url, content=Body(data, on_bytes), headers=headers, to_store=True)
        yield from self._ask(put)
        return link.image_key

    def estimate(self, width: int, height: int, factor: int, options: EstimateOptions) -> Steps[Estimate]:
        """Ask for the result size, tiles and expected seconds of an image of width × height pixels."""
        fields = {"width": width, "height": height, "upscale_factor": factor, **options}
        return self._read(Estimate, "POST", "/v1/estimate", fields)

    def status(self, job_id: str) -> Steps[Snapshot]:
        """Read the current state of a job."""
        return self._read(Snapshot, "GET", f"/v1/jobs/{job_id}")

    def cancel(self, job_id: str) -> Steps[Snapshot]:
        """Cancel a job; returns its state afterwards."""
        return self._read(Snapshot, "DELETE", f"/v1/jobs/{job_id}")

    def download(self, job: str | Result, which: Which) -> Steps[bytes]:
        """Download the result (or the bicubic enlargement, `original`) of a finished job."""
        response = yield from self._ask((yield from self.link(job, which)))
        return response.content

    def link(self, job: str | Result, which: Which) -> Steps[Call]:
        """The GET request to the store for an image of a job; its presigned URL is taken from the Result if given."""
        if isinstance(job, Result):
            address = job.sr_image_url if which == "result" else job.original_image_url
        else:
            response = yield from self._ask(Call("GET", f"{self.url}/v1/jobs/{job}/{which}"))
            address = response.headers["Location"]
        return Call("GET", address, to_store=True)

    def check(self) -> Steps[None]:
        """Check that the server answers. Raises ServerUnreachable when it does not."""
        call = Call("GET", f"{self.url}/healthz")
        try:
            yield call
        except httpx.TransportError as error:
            raise unreachable(call, error) from error

    def events(self, job_id: str, after: str | None) -> Call:
        """The request for the event stream of a job, resuming after the event id `after`."""
        headers = {"Last-Event-ID": after} if after else {}
        return Call("GET", f"{self.url}/v1/jobs/{job_id}/events", headers=headers)

    def _image_fields(self, image: Image, on_bytes: OnBytes) -> Steps[dict[str, str]]:
        """The request fields for an image: its URL, its key in the store after an upload, or its bytes in base64."""
        if isinstance(image, str) and "://" in image:
            return {"image_url": image}
        data, name = (image, {}) if isinstance(image, bytes) else _file(Path(image))
        if len(data) > INLINE_BYTES:
            return {"image_key": (yield from self.upload(data, on_bytes)), **name}
        return {"image_base64": base64.b64encode(data).decode(), **name}

    def _read(self, model: type[Model], method: str, path: str, json: object = None) -> Steps[Model]:
        response = yield from self._ask(Call(method, self.url + path, json))
        return model.model_validate_json(response.content)

    def _ask(self, call: Call) -> Steps[httpx.Response]:
        """Send a request; retry it with backoff, or after Retry-After. Raises the error when no attempt succeeds."""
        asked = 0.0
        for pause in self.pauses():
            if pause:
                yield Pause(max(pause, asked))
            try:
                response: httpx.Response = yield call
            except httpx.TransportError as error:
                failure: UpresError = unreachable(call, error)
                asked = 0.0
            else:
                if response.status_code < httpx.codes.BAD_REQUEST:
                    return response
                failure = refused(call, response)
                asked = retry_after(response)
                if response.status_code not in RETRY_STATUSES or asked > MAX_PAUSE:
                    raise failure
        raise failure


def unreachable(call: Call, error: Exception) -> ServerUnreachable | StoreUnreachable:
    """The exception for a request that got no response."""
    made: ServerUnreachable | StoreUnreachable
    if call.to_store:
        made = StoreUnreachable(f"The object store does not answer ({error}).")
    else:
        where = httpx.URL(call.url)
        made = ServerUnreachable(f"{where.scheme}://{where.netloc.decode()} does not answer; is upres running there?")
    made.__cause__ = error
    return made


def refused(call: Call, response: httpx.Response) -> RequestRefused | ServerUnreachable | StoreUnreachable:
    """The exception for an error response. Without problem details (RFC 9457) it is not from upres."""
    answer = f"{response.status_code} {response.reason_phrase}"
    if call.to_store:
        return StoreUnreachable(f"The object store answered {answer}.")
    try:
        return RequestRefused(Problem.model_validate_json(response.content), retry_after(response))
    except ValidationError:
        where = response.url.copy_with(query=None)  # the query may contain a token
    if response.status_code == httpx.codes.NOT_FOUND or response.is_server_error:
        return ServerUnreachable(f"{where} answered {answer}, not as upres does.")
    detail = f"{where} answered {answer}; that is not upres, but something on the way to it."
    return RequestRefused(
        Problem(
            type="about:blank",
            title=answer,
            status=response.status_code,
            detail=detail,
            code="refused",
            retryable=False,
        )
    )


def noop(*news: object) -> None:
    """Do nothing; the default callback."""


def retry_after(response: httpx.Response) -> float:
    """Seconds of Retry-After (RFC 9110, 10.2.3); 0 when it is missing or a date, which upres never sends."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0


def _file(path: Path) -> tuple[bytes, dict[str, str]]:
    return path.read_bytes(), {"image_name": path.name.encode(errors="replace").decode()}
