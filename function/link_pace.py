"""The pace of requests with the token of a job, and of event streams, for each API key.

It is counted in each process by itself, and not in Redis: a gateway that only serves event streams may write nothing
there. Requests with a token do not count for the pace of the key, so whoever has a link cannot use that up.
"""

import math
import threading
import time

from upres.core.api_keys import ApiKey
from upres.core.errors import RateLimited

SHARE = 0.5
"""Such requests that are allowed, as a share of those that may read with the key: a page that follows a job by its link
asks for its state or its preview once a second at most."""
MANY = 10_000
"""Number of keys from which those are forgotten whose requests were long ago."""


class LinkPace:
    """Counts requests as `api_keys.count_request` does (GCRA), in memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}
        """Id of an API key → the time up to which its requests have used its pace up."""

    def count(self, key: ApiKey) -> None:
        """Count a request. Raises RateLimited, whose `retry_after` gives seconds."""
        per_minute, burst = key.reads_per_minute * SHARE, key.reads_at_once * SHARE
        now, step = time.monotonic(), 60 / per_minute
        with self._lock:
            due = max(now, self._due.get(key.key_id, 0))
            wait = due - now - (burst - 1) * step
            if wait <= 0:
                self._due[key.key_id] = due + step
            if len(self._due) > MANY:
                self._due = {name: until for name, until in self._due.items() if until > now}
        if wait > 0:
            message = f"At most {per_minute:g} requests per minute may use links and event streams of one key's jobs."
            raise RateLimited(message, math.ceil(wait))
