"""Threads that send webhooks: signed messages about jobs that ended. Addresses are checked as in worker/guard.py."""

import logging
import threading
from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from redis.exceptions import RedisError
from standardwebhooks import Webhook

from upres.core import webhooks
from upres.core.errors import FetchError, UrlRefused
from upres.core.logs import JobLog
from upres.core.queue import connect_with_timeout
from upres.core.results import NotTheirs, linked
from upres.core.schema import EVENT, Succeeded
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.core.webhooks import Due
from upres.worker.fetch import Answer, post
from upres.worker.guard import FetchPolicy
from upres.worker.outage_log import OutageLog

log = logging.getLogger("upres.worker")

THREADS = 4
AT_ONCE = 2
"""Maximum number of threads that send for one owner (or one host, without an owner) at a time, so that a slow receiver
does not delay the webhooks of all others."""
BUSY_RETRY_SECONDS = 2.0
"""A webhook above AT_ONCE is due again after this many seconds."""
POLL_SECONDS = 1.0
"""Seconds between two checks for due webhooks while none is due."""
GONE = 410
"""HTTP status of a receiver that does not want the webhook any more (Standard Webhooks); it is not retried."""

BUSY = (429, 503)
"""HTTP statuses of a receiver that is busy; its Retry-After is heeded."""


class WebhookDispatcher:
    """Sends webhooks that are due, in `threads`, which the caller starts, until it is closed."""

    def __init__(self, settings: Settings, store: Store, outage: OutageLog) -> None:
        self._connection = connect_with_timeout(settings)
        self._outage = outage
        self._polling = threading.Lock()
        self._store = store
        self._policy = FetchPolicy.of(settings)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self.threads = [threading.Thread(target=self._run, name="webhooks", daemon=True) for _ in range(THREADS)]

    def close(self) -> None:
        """Send no more webhooks, except those that are being sent now."""
        self._closed.set()

    def _run(self) -> None:
        """Send each webhook that is due."""
        while not self._closed.is_set():
            try:
                if due := self._next():
                    self._send_unless_busy(due)
            except RedisError as error:
                self._outage.failed(error)
                self._closed.wait(POLL_SECONDS)
            except Exception:
                log.exception("a webhook failed")
                self._closed.wait(POLL_SECONDS)

    def _next(self) -> Due | None:
        """Return a webhook that is due; without one wait for POLL_SECONDS. One thread asks at a time."""
        with self._polling:
            due = None if self._closed.is_set() else webhooks.due(self._connection)
            if not due:
                self._closed.wait(POLL_SECONDS)
            return due

    def _send_unless_busy(self, due: Due) -> None:
        """Send a webhook, unless AT_ONCE threads already send for its owner or host; then put it off."""
        with self._lock:
            allowed = self._busy[due.subject] < AT_ONCE
            self._busy[due.subject] += allowed
        if not allowed:
            webhooks.postpone(self._connection, due, BUSY_RETRY_SECONDS)
            return
        try:
            self._send(due)
        finally:
            with self._lock:
                self._busy[due.subject] -= 1
                self._busy += Counter()  # removes entries that are zero

    def _send(self, due: Due) -> None:
        """Send a webhook once. Record in Redis that it is done, or when it is due again."""
        try:
            body = self._body(due)
        except NotTheirs as error:
            JobLog(log, due.job_id).error("its webhook is given up, because its result is forged: %s", error)
            webhooks.delete(self._connection, due)
            return
        try:
            answer = post(due.url, body.encode(), self._headers(due, body), self._policy)
        except UrlRefused as error:
            JobLog(log, due.job_id).warning("its webhook is given up: %s", error)
            webhooks.delete(self._connection, due)
            return
        except FetchError as error:
            answer, why = Answer(0, ""), str(error)
        else:
            why = f"it answered {answer.status}"
        if 200 <= answer.status < 300 or answer.status == GONE:
            webhooks.delete(self._connection, due)
            return
        asked = retry_after(answer.retry_after, datetime.now(UTC)) if answer.status in BUSY else 0
        pause = webhooks.schedule_retry(self._connection, due, asked)
        then = f"again in {pause:.0f} s" if pause else "given up"
        JobLog(log, due.job_id).warning("its webhook was not delivered, %s: %s", why, then)

    def _body(self, due: Due) -> str:
        """Return the message. A result gets new presigned URLs, because those in the stored event may have expired.

        Raises NotTheirs.
        """
        event = EVENT.validate_json(due.event)
        if isinstance(event, Succeeded):
            event = event.model_copy(update={"result": linked(self._store, due.owner or None, event.result)})
        return webhooks.body(event)

    def _headers(self, due: Due, body: str) -> dict[str, str]:
        at = datetime.now(UTC)
        signer = Webhook(webhooks.secret(self._connection, due.owner or None))
        return {
            "Content-Type": "application/json",
            "User-Agent": "upres",
            "webhook-id": due.message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signer.sign(due.message_id, at, body),
        }


def retry_after(text: str, now: datetime) -> float:
    """Return the seconds in a header Retry-After (RFC 9110, 10.2.3): a number, or a date; 0 if it is neither."""
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0
    return max(0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())
