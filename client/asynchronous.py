"""The asyncio client:

from upres.client import AsyncClient

async with AsyncClient("http://127.0.0.1:8000") as client:
    upscaled = await client.upscale("photo.jpg", factor=4)
    await upscaled.save("photo_x4.jpg")
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Self, Unpack, overload
from weakref import WeakKeyDictionary

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


class AsyncUpscaled(NamedTuple):
    """A finished job. Its images are downloaded only by `download` or `save`."""

    client: "AsyncClient"
    job_id: str
    result: Result

    async def download(self, which: Which = "result") -> bytes:
        """See Client.download."""
        return await self.client.download(self.job_id, which)

    async def save(self, path: str | PathLike[str], which: Which = "result") -> Path:
        """See Client.save."""
        return await self.client.save(self.job_id, path, which)


_Connections = WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient]


class AsyncClient:
    """The asyncio version of Client: the same methods and parameters, awaited; `events` and `follow` with `async for`.

    `on_event` and `on_bytes` are plain functions, not coroutines. Methods raise the same errors as those of Client.
    Each event loop gets connections of its own, so a client may be used by several, also after a fork or pickling.
    `close` closes those of the current loop.
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
        self._connections = _Connections()

    def __getstate__(self) -> dict[str, object]:
        return {"_api": self._api, "url": self.url}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _connections=_Connections())

    @property
    def _http(self) -> httpx.AsyncClient:
        """The connections of the current event loop. Raises ClientSetupError."""
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            options = self._api.connection_options()
            try:
                self._connections[loop] = httpx.AsyncClient(**options)
            except (ValueError, ImportError, httpx.InvalidURL) as error:
                raise setup_error(error) from error
        return self._connections[loop]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See Client.close."""
        if http := self._connections.pop(asyncio.get_running_loop(), None):
            await http.aclose()

    async def upscale(
        self,
        image: Image,
        factor: float | None = None,
        *,
        on_event: Callable[[Event], None] = noop,
        on_bytes: OnBytes = noop,
        timeout: float | None = None,
        keep_job: bool = False,
        **options: Unpack[JobOptions],
    ) -> AsyncUpscaled:
        """See Client.upscale. Cancelling the task cancels the job, unless `keep_job` is true."""
        deadline = Deadline(timeout)
        job = await self._run(self._api.submit(image, factor, options, None, 0, on_bytes), deadline)
        try:
            async for _, event in self._follow(job.job_id, None, deadline):
                on_event(event)
        except asyncio.CancelledError:
            if not keep_job:
                with suppress(UpresError, asyncio.TimeoutError):
                    await asyncio.wait_for(self.cancel(job.job_id), CANCEL_SECONDS)
            raise
        ended = event if is_terminal(event) else await self.status(job.job_id)
        return AsyncUpscaled(self, job.job_id, result_of(job.job_id, ended))

    @overload
    async def submit(
        self,
        image: Image,
        factor: float | None = None,
        *,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted: ...

    @overload
    async def submit(
        self,
        image: Image,
        factor: float | None = None,
        *,
        wait: float,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted | Snapshot: ...

    async def submit(
        self,
        image: Image,
        factor: float | None = None,
        *,
        wait: float = 0,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted | Snapshot:
        """See Client.submit."""
        return await self._run(self._api.submit(image, factor, options, idempotency_key, wait, on_bytes))

    async def events(self, job_id: str, *, timeout: float | None = None) -> AsyncIterator[Event]:
        """See Client.events."""
        async for _, event in self.follow(job_id, timeout=timeout):
            yield event

    async def follow(
        self, job_id: str, after: str | None = None, *, timeout: float | None = None
    ) -> AsyncIterator[tuple[str, Event]]:
        """See Client.follow."""
        async for entry in self._follow(job_id, after, Deadline(timeout, f"Job {job_id}")):
            yield entry

    async def _follow(self, job_id: str, after: str | None, deadline: Deadline) -> AsyncIterator[tuple[str, Event]]:
        following = EventFollower(job_id, after, deadline)
        while True:
            call, failure = self._api.events(job_id, following.after), None
            try:
                async with self._stream(call, following.quiet_seconds) as response:
                    following.begin(call, response)
                    async for piece in response.aiter_bytes():
                        for entry in following.feed(piece):
                            yield entry
            except NO_ANSWER as error:
                failure = error
            if following.over:
                return
            await asyncio.sleep(following.pause(call, failure))

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Result:
        """See Client.wait."""
        async for _ in self.follow(job_id, timeout=timeout):
            pass
        return result_of(job_id, await self.status(job_id))

    async def check(self) -> None:
        """See Client.check."""
        await self._run(self._api.check())

    async def status(self, job_id: str) -> Snapshot:
        """See Client.status."""
        return await self._run(self._api.status(job_id))

    async def cancel(self, job_id: str) -> Snapshot:
        """See Client.cancel."""
        return await self._run(self._api.cancel(job_id))

    async def download(self, job: str | Result, which: Which = "result") -> bytes:
        """See Client.download."""
        return await self._run(self._api.download(job, which))

    async def save(
        self,
        job: str | Result,
        path: str | PathLike[str],
        which: Which = "result",
        *,
        may_replace: MayReplace = always,
    ) -> Path:
        """See Client.save."""
        for pause in self._api.pauses():
            await asyncio.sleep(pause)
            call = await self._run(self._api.link(job, which))
            try:
                with atomic_write(Path(path), may_replace) as file:
                    async with self._stream(call) as response:
                        check = ImageCheck(call, response)
                        async for piece in response.aiter_bytes(PIECE_BYTES):
                            file.write(check.feed(piece))
                        check.end()
                return Path(path)
            except NO_ANSWER as error:
                failure = unreachable(call, error)
        raise failure

    async def upload(self, data: bytes, on_bytes: OnBytes = noop) -> str:
        """See Client.upload."""
        return await self._run(self._api.upload(data, on_bytes))

    async def estimate(
        self, width: int, height: int, factor: float | None = None, **options: Unpack[EstimateOptions]
    ) -> Estimate:
        """See Client.estimate."""
        return await self._run(self._api.estimate(width, height, factor, options))

    async def _run(self, steps: Steps[Answer], deadline: Deadline = NO_DEADLINE) -> Answer:
        """Run the steps of an operation; returns its result. Raises JobTimeout."""
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Pause):
                        await asyncio.sleep(deadline.limit(step.seconds))
                        step = next(steps)
                    else:
                        step = steps.send(await self._http.send(self._request(step, deadline)))
                except NO_ANSWER as error:
                    step = steps.throw(error)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer

    def _request(self, call: Call, deadline: Deadline) -> httpx.Request:
        content = call.content.pieces_async(deadline) if call.content else None
        request = self._http.build_request(call.method, call.url, content=content, **self._api.parts(call))
        request.extensions["timeout"] = deadline.limit_all(request.extensions["timeout"])
        return request

    @asynccontextmanager
    async def _stream(self, call: Call, quiet_seconds: float | None = None) -> AsyncIterator[httpx.Response]:
        """A response whose body is read in pieces; an error response is read whole. Raises httpx.RequestError."""
        request = self._request(call, NO_DEADLINE)
        if quiet_seconds is not None:
            request.extensions["timeout"]["read"] = quiet_seconds
        response = await self._http.send(request, stream=True)
        try:
            if response.is_error:
                await response.aread()
            yield response
        finally:
            await response.aclose()
