"""Publishes events of a job that follow each other within milliseconds together, in one round trip to Redis.

A small job has eight events in some 20 milliseconds. One by one, each would cost its worker a round trip, and each
process that serves the job's event stream a wake-up and a read. So the first event after a pause is published at once;
those within HOLD_SECONDS after it wait until that time is over, or until one comes that may not wait: the job's end.
"""

import logging
import threading
import time
from queue import SimpleQueue

from redis import Redis
from redis.exceptions import RedisError

from upres.core import events
from upres.core.leases import Lease
from upres.core.schema import Event
from upres.worker import metrics

log = logging.getLogger("upres.worker")

HOLD_SECONDS = 0.025
"""Longest time in seconds that an event waits for others: less than a person sees."""


class OutboxThread(threading.Thread):
    """Publishes what waits in outboxes when its time is over. It ends with the process."""

    def __init__(self) -> None:
        super().__init__(name="outbox", daemon=True)
        self._due: SimpleQueue[tuple[float, Outbox]] = SimpleQueue()

    def publish_at(self, when: float, outbox: "Outbox") -> None:
        """Publish what is in an outbox at a time of time.monotonic, or up to HOLD_SECONDS later."""
        self._due.put((when, outbox))

    def run(self) -> None:
        """Publish what is due, again and again. An outbox keeps its error for its own thread."""
        while True:
            when, outbox = self._due.get()
            time.sleep(max(0.0, when - time.monotonic()))
            outbox.publish_due()


class Outbox:
    """The events of one job that this worker holds, in their order. Safe from all threads.

    Methods return False when Redis refused an event, because this worker does not hold the job any more. They raise
    redis-py's errors, also one that `publish_due` met before.
    """

    def __init__(self, connection: Redis, lease: Lease, thread: OutboxThread) -> None:
        self._connection, self._lease, self._thread = connection, lease, thread
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        self._hold_until = 0.0
        self._is_refused = False
        self._error: Exception | None = None

    def add(self, event: Event) -> bool:
        """Publish an event at once, or within HOLD_SECONDS if another one was published a moment ago."""
        with self._lock:
            self._waiting.append(event)
            if time.monotonic() >= self._hold_until:
                return self._publish()
            if len(self._waiting) == 1:
                self._thread.publish_at(self._hold_until, self)
            return self._state()

    def publish(self, *more: Event) -> bool:
        """Publish all events that wait, and these after them, now."""
        with self._lock:
            self._waiting += more
            return self._publish()

    def publish_due(self) -> None:
        """Publish all events that wait, from another thread than the job's, which gets the error at its next event."""
        try:
            self.publish()
        except RedisError:
            pass
        except Exception:
            log.exception("events could not be published")

    def _publish(self) -> bool:
        if self._state() and self._waiting:
            together, self._waiting = self._waiting, []
            try:
                self._is_refused = events.append_all(self._connection, together, self._lease.holder) is None
            except Exception as error:  # these events are lost, so none may follow
                self._error = error
                raise
            self._hold_until = time.monotonic() + HOLD_SECONDS
            if not self._is_refused:
                for event in together:
                    metrics.EVENTS.labels(event.type).inc()
        return not self._is_refused

    def _state(self) -> bool:
        if self._error:
            raise self._error
        return not self._is_refused
