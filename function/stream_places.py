"""Places for event streams: each job, API key and address has some, so that one client cannot take all that there are.

They are counted in each process of the function by itself, because streams are what only this process can run out of.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from upres.core.errors import TooManyStreams
from upres.function import limits
from upres.function.clients import ClientName


class StreamPlaces:
    """The number of open event streams of each job, API key and address."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()

    def take(self, job_id: str, client: ClientName | None) -> Callable[[], None]:
        """Take a place for a stream of a job, and return the function that gives it back. Raises TooManyStreams."""
        if client is None:
            return lambda: None
        most = limits.STREAMS_PER_KEY if client.kind == "key" else limits.STREAMS_PER_ADDRESS
        groups = {("job", job_id): limits.STREAMS_PER_JOB, (client.kind, client.name): most}
        for group, limit in groups.items():
            if self._open[group] >= limit:
                raise TooManyStreams(f"{limit} event streams of this {group[0]} are open; close one.")
        self._open.update(groups.keys())

        def leave() -> None:
            self._open.subtract(groups.keys())
            for group in groups:
                if not self._open[group]:
                    del self._open[group]

        return leave


class HeldStream(StreamingResponse):
    """An event stream that gives its place back when it ends, in whatever way."""

    def __init__(self, frames: AsyncIterator[str], headers: Mapping[str, str], leave: Callable[[], None]) -> None:
        super().__init__(frames, headers=headers, media_type="text/event-stream")
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream (see ASGI)."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()
