"""Waiting for events behind a gateway that buffers answers, as AWS's API Gateway does, so that streams are useless."""

import time
from typing import Any

from upres.core import events, keys, leases
from upres.core.queue import connect_with_timeout
from upres.core.settings import Settings
from upres.function import stream

POLL_SECONDS = 20
"""Maximum seconds that a gateway which buffers waits for events: below the timeout of API Gateway, 30 s."""


def poll(settings: Settings, job_id: str, after: str) -> list[stream.Frame]:
    """Wait for events of the job after an id, and return them; an empty list after POLL_SECONDS without any."""
    with connect_with_timeout(settings, POLL_SECONDS + 5) as connection:
        answer: Any = connection.xread({keys.events(job_id): after}, stream.MAX_READ, int(POLL_SECONDS * 1000))
        if not answer:
            leases.expire(connection, job_id)
    return stream.frames(answer[0][1]) if answer else []


def wait(settings: Settings, job_id: str, seconds: float) -> bool:
    """Wait for the end of a job for at most `seconds`. Return whether it has ended."""
    after, deadline = events.START, time.monotonic() + seconds
    with connect_with_timeout(settings, seconds + 5) as connection:
        while (left := deadline - time.monotonic()) > 0:
            answer: Any = connection.xread({keys.events(job_id): after}, block=max(1, int(left * 1000)))
            entries = events.parse(answer[0][1]) if answer else []
            if entries and events.is_terminal(entries[-1][1]):
                return True
            after = entries[-1][0] if entries else after
    return False
