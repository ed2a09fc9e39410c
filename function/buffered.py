"""Waiting for events behind a gateway that buffers answers, as AWS's API Gateway does, so that streams are useless."""

import time
from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from upres.core import events, keys, leases
from upres.core.queue import connect_with_timeout
from upres.core.settings import Settings
from upres.function import stream

POLL_SECONDS = 20
"""Maximum seconds that a gateway which buffers waits for events: below the timeout of API Gateway, 29 s."""
GATEWAY_SECONDS = 29.0
"""Seconds after which API Gateway gives a request up: 29 for a REST API, 30 for an HTTP API."""
ANSWER_SECONDS = 4.0
"""Seconds that are left for the answer when a wait ends: a read from Redis that may fail after three."""
_ENDS = "upres.ends"


def is_buffered(request: Request) -> bool:
    """Whether the request came through a gateway that buffers answers: to a Lambda function."""
    return "aws.event" in request.scope


def set_end(scope: Scope, remaining: float, begun: float | None) -> None:
    """Note when the answer to a request has to be ready.

    `remaining` is the time in seconds until Lambda ends the invocation; `begun` is when the gateway got the request, in
    seconds since 1970: a cold start is part of the gateway's time, and not of Lambda's.
    """
    waited = min(max(0.0, time.time() - begun), GATEWAY_SECONDS) if begun else 0.0
    scope[_ENDS] = time.monotonic() + min(remaining, GATEWAY_SECONDS - waited)


def seconds_left(request: Request) -> float:
    """Seconds that a request may still wait, so that its answer is in time; 0 when it may not wait any more."""
    ends: float = request.scope.get(_ENDS, time.monotonic() + GATEWAY_SECONDS)
    return max(0.0, ends - ANSWER_SECONDS - time.monotonic())


def poll(settings: Settings, job_id: str, after: str, seconds: float) -> list[stream.Frame]:
    """Wait for events of the job after an id, and return them; an empty list after `seconds` without any.

    Raises redis-py's errors, at the latest two seconds after that time.
    """
    with connect_with_timeout(settings, seconds + 2) as connection:
        answer: Any = connection.xread({keys.events(job_id): after}, stream.MAX_READ, max(1, int(seconds * 1000)))
        if not answer:
            leases.expire(connection, job_id)
    return stream.frames(answer[0][1]) if answer else []


def wait(settings: Settings, job_id: str, seconds: float) -> bool:
    """Wait for the end of a job for at most `seconds`. Return whether it has ended.

    Raises redis-py's errors, at the latest two seconds after that time.
    """
    after, deadline = events.START, time.monotonic() + seconds
    with connect_with_timeout(settings, seconds + 2) as connection:
        while (left := deadline - time.monotonic()) > 0:
            answer: Any = connection.xread({keys.events(job_id): after}, block=max(1, int(left * 1000)))
            entries = events.parse(answer[0][1]) if answer else []
            if entries and events.is_terminal(entries[-1][1]):
                return True
            after = entries[-1][0] if entries else after
    return False
