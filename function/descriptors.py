"""The process's file descriptors: each connection needs one, and the system limits their number (RLIMIT_NOFILE)."""

import logging
import resource
import time
from contextlib import suppress

from starlette.requests import Request

from upres.core.errors import FunctionUnavailable
from upres.function import limits

RESERVED = "reserved"
"""Key in the `state` of a request (see ASGI): whether its connection has a reserved descriptor."""
WARNING_SECONDS = 60
"""Minimum seconds between two warnings in the log."""
log = logging.getLogger("upres.function")


def raise_limit() -> None:
    """Raise the soft limit to the hard limit: many systems set 1,024 for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses an unlimited number
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def is_reserved(descriptor: int) -> bool:
    """Whether a descriptor is one of the last: DESCRIPTORS_KEPT of them, or a quarter of a small limit.

    They are for probes and short requests. A new descriptor gets the lowest unused number (POSIX), so while there are
    others, none of them is used.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and descriptor >= limit - min(limits.DESCRIPTORS_KEPT, limit // 4)


class StreamGate:
    """Refuses event streams on the last descriptors."""

    def __init__(self) -> None:
        self._warned = float("-inf")

    def check(self, request: Request) -> None:
        """Raise FunctionUnavailable for a request whose connection has one of them; the log says so once a minute."""
        if not request.scope.get("state", {}).get(RESERVED):
            return
        if time.monotonic() - self._warned > WARNING_SECONDS:
            self._warned = time.monotonic()
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.warning("event streams are refused: few of the %d file descriptors are left; raise LimitNOFILE", limit)
        raise FunctionUnavailable("This process of the function has no room for another event stream; try again later.")
