"""The asyncio client:

from upres.client import AsyncClient

async with AsyncClient("http://127.0.0.1:8000") as client:
    upscaled = await client.upscale("photo.jpg", factor=4)
    await upscaled.save("photo_x4.jpg")
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple, Self, Unpack, overload

import httpx

from upres.client.atomic_file import MayReplace, always, atomic_write
from upres.client.following import EventFollower, result_of
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
    noop,
    unreachable,
)
from upres.core.api import Estimate, JobAccepted
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


class AsyncClient:
    """The asyncio version of Client: the same methods and parameters, awaited; `events` and `follow` with `async for`.

    `on_event` and `on_bytes` are plain functions, not coroutines. Methods raise the same errors as those of Client.
    Unlike Client it belongs to one event loop: it cannot be pickled, or used after a fork.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout: float = 45, retries: int = 4
    ) -> None:
        self._api = ApiOperations(url, api_key, retries)
        self._http = httpx.AsyncClient(timeout=self._api.timeout(timeout), limits=self._api.limits)
        self.url = self._api.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See Client.close."""
        await self._http.aclose()

    async def upscale(
        self,
        image: Image,
        factor: int = 4,
        *,
        on_event: Callable[[Event], None] = noop,
        on_bytes: OnBytes = noop,
        timeout: float | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncUpscaled:
        """See Client.upscale."""
        job = await self.submit(image, factor, on_bytes=on_bytes, **options)
        async for event in self.events(job.job_id, timeout=timeout):
            on_event(event)
        return AsyncUpscaled(self, job.job_id, result_of(job.job_id, event))

    @overload
    async def submit(
        self,
        image: Image,
        factor: int = 4,
        *,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted: ...

    @overload
    async def submit(
        self,
        image: Image,
        factor: int = 4,
        *,
        wait: float,
        idempotency_key: str | None = None,
        on_bytes: OnBytes = noop,
        **options: Unpack[JobOptions],
    ) -> JobAccepted | Snapshot: ...

    async def submit(
        self,
        image: Image,
        factor: int = 4,
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
        following = EventFollower(job_id, after, timeout)
        while not following.over:
            call = self._api.events(job_id, following.after)
            try:
                async with self._stream(call, following.quiet_seconds) as response:
                    following.begin(response)
                    async for line in response.aiter_lines():
                        if entry := following.feed(line):
                            yield entry
            except httpx.TransportError as error:
                await asyncio.sleep(following.pause(error))

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
                        async for piece in response.aiter_bytes(PIECE_BYTES):
                            file.write(piece)
                return Path(path)
            except httpx.TransportError as error:
                failure = unreachable(call, error)
        raise failure

    async def upload(self, data: bytes, on_bytes: OnBytes = noop) -> str:
        """See Client.upload."""
        return await self._run(self._api.upload(data, on_bytes))

    async def estimate(self, width: int, height: int, factor: int = 4, **options: Unpack[EstimateOptions]) -> Estimate:
        """See Client.estimate."""
        return await self._run(self._api.estimate(width, height, factor, options))

    async def _run(self, steps: Steps[Answer]) -> Answer:
        """Run the steps of an operation; returns its result."""
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Pause):
                        await asyncio.sleep(step.seconds)
                        step = next(steps)
                    else:
                        step = steps.send(await self._http.send(self._request(step)))
                except httpx.TransportError as error:
                    step = steps.throw(error)
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer

    def _request(self, call: Call) -> httpx.Request:
        content = call.content.pieces_async() if call.content else None
        return self._http.build_request(call.method, call.url, content=content, **self._api.parts(call))

    @asynccontextmanager
    async def _stream(self, call: Call, quiet_seconds: float | None = None) -> AsyncIterator[httpx.Response]:
        """A response whose body is read in pieces. Raises RequestRefused, ServerUnreachable or httpx.TransportError."""
        request = self._request(call)
        if quiet_seconds is not None:
            request.extensions["timeout"]["read"] = quiet_seconds
        response = await self._http.send(request, stream=True)
        try:
            if response.is_error:
                await response.aread()
                raise self._api.stream_error(call, response)
            yield response
        finally:
            await response.aclose()
