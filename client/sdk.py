"""The synchronous client:

from upres.client import Client

with Client("http://127.0.0.1:8000") as client:
    client.upscale("photo.jpg", factor=4).save("photo_x4.jpg")
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Self, Unpack, overload

import httpx

from upres.client.atomic_file import MayReplace, always, atomic_write
from upres.client.calls import CANCEL_SECONDS, NO_DEADLINE, PIECE_BYTES, Answer, Call, Deadline, OnBytes, Pause, Steps
from upres.client.environment import Verify, setup_error
from upres.client.following import EventFollower, is_terminal, result_of
from upres.client.protocol import ApiOperations, EstimateOptions, Image, JobOptions, Which, noop
from upres.client.responses import NO_ANSWER, ImageCheck, unreachable
from upres.core.api import Estimate, JobAccepted
from upres.core.errors import UpresError
from upres.core.schema import Event, Result, Snapshot


class Upscaled(NamedTuple):
    """A finished job. Its images are downloaded only by `download` or `save`."""

    client: "Client"
    job_id: str
    result: Result

    def download(self, which: Which = "result") -> bytes:
        """Download the enlarged image, or with "original" its bicubic enlargement. See Client.download."""
        return self.client.download(self.job_id, which)

    def save(self, path: str | PathLike[str], which: Which = "result") -> Path:
        """Write that image file to a path; returns the path. See Client.save."""
        return self.client.save(self.job_id, path, which)


class Client:
    """A client of an upres server, by default the one at UPRES_URL; a context manager, safe for use by several threads.

    An API key is given by `api_key` or in UPRES_API_KEY. `timeout` is the response timeout in seconds. Requests that
    fail for a temporary reason are retried `retries` times, with backoff, or after the time in Retry-After. `verify` is
    a file of CA certificates, an SSL context, or False. Proxies come from the environment (HTTPS_PROXY, NO_PROXY, …).

    Raises ClientSetupError when one of these is wrong on this machine. Methods raise ServerUnreachable or
    StoreUnreachable when the server or the object store does not answer, or something else answers in its place, and
    RequestRefused when the server answers with an error (with its stable `code`).

    After a fork, and when it was pickled, a client opens connections of its own.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 45,
        retries: int = 4,
        verify: Verify = True,
    ) -> None:
        self._api = ApiOperations(url, api_key, retries, timeout, verify)
        self.url = self._api.url
        self._connect()

    def _connect(self) -> None:
        options = self._api.connection_options()
        try:
            self._connections, self._pid = httpx.Client(**options), os.getpid()
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise setup_error(error) from error

    @property
    def _http(self) -> httpx.Client:
        """The connections of this process. On its parent's, a forked process would read its parent's responses."""
        if self._pid != os.getpid() and not self._connections.is_closed:
            self._connect()
        return self._connections

    def __getstate__(self) -> dict[str, object]:
        return {"_api": self._api, "url": self.url}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections of the client."""
        self._http.close()

    def upscale(
        self,
        image: Image,
        factor: float | None = None,
        *,
        on_event: Callable[[Event], None] = noop,
        on_bytes: OnBytes = noop,
        timeout: float | None = None,
        keep_job: bool = False,
        **options: Unpack[JobOptions],
    ) -> Upscaled:
        """Submit an image (path, bytes or http(s) URL), wait until the job ends, and return it.

        `factor` is any number from 1 to 8, by default 4; or give `output_width`, `output_height` or both instead.
        `on_event` is called with every event, `on_bytes` with the progress of an upload. Raises JobFailed or
        JobCancelled when the job has no result, and JobTimeout when it does not end within `timeout` seconds, which
        include the upload; it goes on then. Ctrl-C cancels the job, unless `keep_job` is true.
        """
        deadline = Deadline(timeout)
        job = self._run(self._api.submit(image, factor, options, None, 0, on_bytes), deadline)
        try:
            for _, event in self._follow(job.job_id, None, deadline):
                on_event(event)
        except KeyboardInterrupt:
            if not keep_job:
                with suppress(UpresError):
                    self._run(self._api.cancel(job.job_id), Deadline(CANCEL_SECONDS))
            raise
        ended = event if is_terminal(event) else self.status(job.job_id)
        return Upscaled(self, job.job_id, result_of(job.job_id, ended))

    @overload
    def submit(
        self,
        image: Image,
        factor: float | None = None,
        *,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted: ...

    @overload
    def submit(
        self,
        image: Image,
        factor: float | None = None,
        *,
        wait: float,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted | Snapshot: ...

    def submit(
        self,
        image: Image,
        factor: float | None = None,
        *,
        wait: float = 0,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted | Snapshot:
        """Submit an image, return at once. With `wait`, return the job's Snapshot if it ends in `wait` seconds (≤ 25).

        Files of more than 4 MB are uploaded straight to the store first. Raises OSError when the path is missing.
        """
        return self._run(self._api.submit(image, factor, options, idempotency_key, wait, on_bytes))

    def events(self, job_id: str, *, timeout: float | None = None) -> Iterator[Event]:
        """Yield the events of the job, from the first to the terminal one. See `follow`."""
        for _, event in self.follow(job_id, timeout=timeout):
            yield event

    def follow(
        self, job_id: str, after: str | None = None, *, timeout: float | None = None
    ) -> Iterator[tuple[str, Event]]:
        """Yield the events of the job with their ids, from the first, or from the one after the id `after`.

        Ends after the terminal event. Reconnects and resumes when the connection is lost. Raises ServerUnreachable when
        reconnecting fails for a minute, and JobTimeout when the job does not end within `timeout` seconds.
        """
        return self._follow(job_id, after, Deadline(timeout, f"Job {job_id}"))

    def _follow(self, job_id: str, after: str | None, deadline: Deadline) -> Iterator[tuple[str, Event]]:
        following = EventFollower(job_id, after, deadline)
        while True:
            call, failure = self._api.events(job_id, following.after), None
            try:
                with self._stream(call, following.quiet_seconds) as response:
                    following.begin(call, response)
                    for piece in response.iter_bytes():
                        yield from following.feed(piece)
            except NO_ANSWER as error:
                failure = error
            if following.over:
                return
            time.sleep(following.pause(call, failure))

    def wait(self, job_id: str, *, timeout: float | None = None) -> Result:
        """Wait until the job ends; returns its result. Raises JobFailed, JobCancelled or JobTimeout."""
        for _ in self.follow(job_id, timeout=timeout):
            pass
        return result_of(job_id, self.status(job_id))

    def check(self) -> None:
        """Raise ServerUnreachable unless the server answers now."""
        self._run(self._api.check())

    def status(self, job_id: str) -> Snapshot:
        """Read the current state of the job."""
        return self._run(self._api.status(job_id))

    def cancel(self, job_id: str) -> Snapshot:
        """Cancel the job; returns its state. A job that has ended is not changed."""
        return self._run(self._api.cancel(job_id))

    def download(self, job: str | Result, which: Which = "result") -> bytes:
        """Download an image file of a finished job. Given a Result, its presigned URL is used, valid for an hour."""
        return self._run(self._api.download(job, which))

    def save(
        self,
        job: str | Result,
        path: str | PathLike[str],
        which: Which = "result",
        *,
        may_replace: MayReplace = always,
    ) -> Path:
        """Write an image file of a finished job to a path, in pieces, whole or not at all; returns the path.

        The file is on the disk when the method returns. An existing file is replaced, or, if `may_replace` returns
        False for it, kept, and FileExistsError is raised. A pipe or device (/dev/stdout) is written into.
        """
        for pause in self._api.pauses():
            time.sleep(pause)
            call = self._run(self._api.link(job, which))
            try:
                with atomic_write(Path(path), may_replace) as file, self._stream(call) as response:
                    check = ImageCheck(call, response)
                    for piece in response.iter_bytes(PIECE_BYTES):
                        file.write(check.feed(piece))
                    check.end()
                return Path(path)
            except NO_ANSWER as error:
                failure = unreachable(call, error)
        raise failure

    def upload(self, data: bytes, on_bytes: OnBytes = noop) -> str:
        """Upload an image file straight to the store; returns the key for `image_key`.

        `on_bytes` is called with (bytes sent, bytes in total).
        """
        return self._run(self._api.upload(data, on_bytes))

    def estimate(
        self, width: int, height: int, factor: float | None = None, **options: Unpack[EstimateOptions]
    ) -> Estimate:
        """Estimate the result and the seconds for an image of width × height pixels; factor or size as in upscale."""
        return self._run(self._api.estimate(width, height, factor, options))

    def _run(self, steps: Steps[Answer], deadline: Deadline = NO_DEADLINE) -> Answer:
        """Run the steps of an operation; returns its result. Raises JobTimeout."""
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Pause):
                        time.sleep(deadline.limit(step.seconds))
                        step = next(steps)
                    else:
                        step = steps.send(self._http.send(self._request(step, deadline)))
                except NO_ANSWER as error:
                    step = steps.throw(error)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer

    def _request(self, call: Call, deadline: Deadline) -> httpx.Request:
        content = call.content.pieces(deadline) if call.content else None
        request = self._http.build_request(call.method, call.url, content=content, **self._api.parts(call))
        request.extensions["timeout"] = deadline.limit_all(request.extensions["timeout"])
        return request

    @contextmanager
    def _stream(self, call: Call, quiet_seconds: float | None = None) -> Iterator[httpx.Response]:
        """A response whose body is read in pieces; an error response is read whole. Raises httpx.RequestError."""
        request = self._request(call, NO_DEADLINE)
        if quiet_seconds is not None:
            request.extensions["timeout"]["read"] = quiet_seconds
        response = self._http.send(request, stream=True)
        try:
            if response.is_error:
                response.read()
            yield response
        finally:
            response.close()
