"""Use upres from a program:

from upres.client import Client

upscaled = Client("http://127.0.0.1:8000").upscale("photo.jpg", factor=4)
upscaled.save("photo_x4.jpg")
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Self, Unpack, overload

import httpx

from upres.client.following import Following, result_of
from upres.client.protocol import (
    PIECE_BYTES,
    Answer,
    ApiOperations,
    Call,
    EstimateOptions,
    Image,
    JobOptions,
    OnBytes,
    Pause,
    Steps,
    Which,
    atomic_write,
    noop,
    unreachable,
)
from upres.core.api import Estimate, JobAccepted
from upres.core.schema import Event, Result, Snapshot


class Upscaled(NamedTuple):
    """A finished job; the images are downloaded when asked for."""

    client: "Client"
    job_id: str
    result: Result

    def download(self, which: Which = "result") -> bytes:
        """The enlarged image's file, or its bicubic enlargement's."""
        return self.client.download(self.job_id, which)

    def save(self, path: str | PathLike[str], which: Which = "result") -> Path:
        """Write that file; returns where."""
        return self.client.save(self.job_id, path, which)


class Client:
    """A connection to an upres server, by default the one in UPRES_URL; a context manager, and good for threads.

    Where the server asks for an API key, it is given here or in UPRES_API_KEY. `timeout` is how many seconds an
    answer is waited for. What fails for a reason that may pass is tried again, `retries` times, and as late as
    Retry-After asks for.

    Methods raise ServerUnreachable or Refused (the server's problem, with its stable `code`).
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout: float = 45, retries: int = 4
    ) -> None:
        self._api = ApiOperations(url, api_key, retries)
        self._http = httpx.Client(timeout=self._api.timeout(timeout), limits=self._api.limits)
        self.url = self._api.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def upscale(
        self,
        image: Image,
        factor: int = 4,
        *,
        on_event: Callable[[Event], None] = noop,
        on_bytes: OnBytes = noop,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> Upscaled:
        """Submit an image (path, bytes or http(s) URL), wait, and return what became of it.

        `on_event` sees every event on the way, `on_bytes` how much of a large file is uploaded. Raises JobFailed or
        JobCancelled when there is no result, and NotInTime when the job takes longer than `timeout` seconds.
        """
        job = self.submit(image, factor, on_bytes=on_bytes, **options)
        for event in self.events(job.job_id, timeout=timeout):
            on_event(event)
        return Upscaled(self, job.job_id, result_of(job.job_id, event))

    @overload
    def submit(
        self,
        image: Image,
        factor: int = 4,
        *,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted: ...

    @overload
    def submit(
        self,
        image: Image,
        factor: int = 4,
        *,
        wait: float,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted | Snapshot: ...

    def submit(
        self,
        image: Image,
        factor: int = 4,
        *,
        wait: float = 0,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted | Snapshot:
        """Submit an image and return at once; with `wait`, the job's Snapshot if it ends within so many seconds (≤ 25).

        Files of more than 4 MB go straight into the store first. Raises FileNotFoundError for a path that is not there.
        """
        return self._run(self._api.submit(image, factor, options, idempotency_key, wait, on_bytes))

    def events(self, job_id: str, *, timeout: float | None = None) -> Iterator[Event]:
        """The job's events, from the first to the terminal one. See `follow`."""
        for _, event in self.follow(job_id, timeout=timeout):
            yield event

    def follow(
        self, job_id: str, after: str | None = None, *, timeout: float | None = None
    ) -> Iterator[tuple[str, Event]]:
        """The job's events with their ids, from the first, or after an id, to the terminal one.

        Reconnects where it was; ServerUnreachable when that fails for a minute, NotInTime when the job has not ended
        within `timeout` seconds.
        """
        following = Following(job_id, after, timeout)
        while not following.over:
            call = self._api.events(job_id, following.after)
            try:
                with self._stream(call, following.quiet_seconds) as response:
                    following.begin(response)
                    for line in response.iter_lines():
                        if entry := following.feed(line):
                            yield entry
            except httpx.TransportError as error:
                time.sleep(following.pause(error))

    def wait(self, job_id: str, *, timeout: float | None = None) -> Result:
        """The result, when the job has ended. Raises JobFailed, JobCancelled or NotInTime."""
        for _ in self.follow(job_id, timeout=timeout):
            pass
        return result_of(job_id, self.status(job_id))

    def check(self) -> None:
        """Raise ServerUnreachable unless the server answers now."""
        self._run(self._api.check())

    def status(self, job_id: str) -> Snapshot:
        """The job now."""
        return self._run(self._api.status(job_id))

    def cancel(self, job_id: str) -> Snapshot:
        """Cancel the job; one that has ended stays as it is."""
        return self._run(self._api.cancel(job_id))

    def download(self, job: str | Result, which: Which = "result") -> bytes:
        """The file of a finished job's image; of a Result by its own link, which works for an hour."""
        return self._run(self._api.download(job, which))

    def save(self, job: str | Result, path: str | PathLike[str], which: Which = "result") -> Path:
        """Write the file of a finished job's image, piece by piece, whole or not at all; returns where."""
        for pause in self._api.pauses():
            time.sleep(pause)
            call = self._run(self._api.link(job, which))
            try:
                with atomic_write(Path(path)) as file, self._stream(call) as response:
                    for piece in response.iter_bytes(PIECE_BYTES):
                        file.write(piece)
                return Path(path)
            except httpx.TransportError as error:
                failure = unreachable(call, error)
        raise failure

    def upload(self, data: bytes, on_bytes: OnBytes = noop) -> str:
        """Put an image file straight into the store; returns the key for `image_key`.

        `on_bytes` hears how many bytes of how many were sent.
        """
        return self._run(self._api.upload(data, on_bytes))

    def estimate(self, width: int, height: int, factor: int = 4, **options: Unpack[EstimateOptions]) -> Estimate:
        """What would become of an image of this size in pixels, and how long it would take."""
        return self._run(self._api.estimate(width, height, factor, options))

    def _run(self, steps: Steps[Answer]) -> Answer:
        """Do what an operation asks for, one step after the other."""
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Pause):
                        time.sleep(step.seconds)
                        step = next(steps)
                    else:
                        step = steps.send(self._http.send(self._request(step)))
                except httpx.TransportError as error:
                    step = steps.throw(error)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer

    def _request(self, call: Call) -> httpx.Request:
        content = call.content.pieces() if call.content else None
        return self._http.build_request(call.method, call.url, content=content, **self._api.parts(call))

    @contextmanager
    def _stream(self, call: Call, quiet_seconds: float | None = None) -> Iterator[httpx.Response]:
        """A response whose body is read piece by piece. Raises Refused, ServerUnreachable or httpx.TransportError."""
        request = self._request(call)
        if quiet_seconds is not None:
            request.extensions["timeout"]["read"] = quiet_seconds
        response = self._http.send(request, stream=True)
        try:
            if response.is_error:
                response.read()
                raise self._api.stream_error(call, response)
            yield response
        finally:
            response.close()
