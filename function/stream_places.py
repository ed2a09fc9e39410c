"""Places for event streams: each job, API key and address has some, so that one client cannot take all that there are.

They are counted in each process of the function by itself, because streams are what only this process can run out of.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from ipaddress import ip_address, ip_network

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from upres.core.errors import TooManyStreams
from upres.function import limits
from upres.function.jobs import ANY_OWNER

IPV6_NETWORK = 64
"""Bits of an IPv6 address that count: a network of one subscriber has 2^64 addresses (RFC 6177)."""


class StreamPlaces:
    """The number of open event streams of each job, API key and address."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()

    def take(self, job_id: str, owner: str | None, address: str) -> Callable[[], None]:
        """Take a place for a stream of a job, and return the function that gives it back.

        A stream of an API key (`owner`) counts for the key; one without a key, or with a token, counts for the address
        of the client. Raises TooManyStreams.
        """
        by_key = owner not in (None, ANY_OWNER)
        theirs = ("key", str(owner)) if by_key else ("address", _network(address))
        most = limits.STREAMS_PER_KEY if by_key else limits.STREAMS_PER_ADDRESS
        groups = {("job", job_id): limits.STREAMS_PER_JOB, theirs: most}
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


def _network(address: str) -> str:
    """Return an address, or the network of an IPv6 address; text that is no address as it is."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if known.version == 6 and known.ipv4_mapped is None:
        return str(ip_network((known, IPV6_NETWORK), strict=False))
    return address
