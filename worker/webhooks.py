"""Threads that send webhooks: signed messages about jobs that ended. Addresses are checked as in worker/guard.py."""

import json
import logging
import threading
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from redis.exceptions import RedisError
from standardwebhooks import Webhook

from upres.core import events, webhooks
from upres.core.errors import FetchError, UrlRefused
from upres.core.logs import JobLog
from upres.core.queue import connect_with_timeout
from upres.core.results import NotTheirs, linked
from upres.core.schema import Succeeded, UnknownEvent
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.core.webhooks import Due
from upres.worker.fetch import Answer, post
from upres.worker.guard import FetchPolicy
from upres.worker.outage_log import OutageLog
from upres.worker.webhook_limits import Busy, Limits, Sending

log = logging.getLogger("upres.worker")

AT_ONCE = 64
"""Maximum number of webhooks that are sent at a time, each in a thread. worker/webhook_limits.py limits the part of
each owner and receiver, so that slow receivers do not delay the webhooks of others."""
POLL_SECONDS = 1.0
"""Seconds between two checks for due webhooks while none is due."""
GONE = 410
"""HTTP status of a receiver that does not want the webhook any more (Standard Webhooks); it is not retried."""

BUSY = (429, 503)
"""HTTP statuses of a receiver that is busy; its Retry-After is heeded."""


class WebhookDispatcher(threading.Thread):
    """Sends webhooks that are due, until it is closed."""

    def __init__(self, settings: Settings, store: Store, outage: OutageLog) -> None:
        super().__init__(name="webhooks", daemon=True)
        self._connection = connect_with_timeout(settings)
        self._outage = outage
        self._store = store
        self._policy = FetchPolicy.of(settings)
        self._closed = threading.Event()
        self._limits = Limits()
        self._places = threading.Semaphore(AT_ONCE)

    def close(self) -> None:
        """Send no more webhooks, except those that are being sent now."""
        self._closed.set()

    def run(self) -> None:
        """Start a thread for each webhook that is due, as long as there are less than AT_ONCE."""
        while not self._closed.is_set():
            if not self._places.acquire(timeout=POLL_SECONDS):
                continue
            if not self._start_one():
                self._places.release()
                self._closed.wait(POLL_SECONDS)

    def _start_one(self) -> bool:
        """Start to send a webhook that is due. Returns False when there is none, or it could not be started."""
        try:
            if due := webhooks.due(self._connection):
                threading.Thread(target=self._try, args=(due,), name="webhook", daemon=True).start()
                return True
        except RedisError as error:
            self._outage.failed(error)
        except Exception:  # also: the system starts no thread
            log.exception("a webhook failed")
        return False

    def _try(self, due: Due) -> None:
        """Send a webhook, unless a limit is reached: then put it off until its turn is expected."""
        try:
            try:
                with self._limits.send(due.owner, due.attempt) as sending:
                    self._send(due, sending)
            except Busy as busy:
                webhooks.postpone(self._connection, due, busy.seconds)
        except RedisError as error:
            self._outage.failed(error)
        except Exception:
            log.exception("a webhook failed")
        finally:
            self._places.release()

    def _send(self, due: Due, sending: Sending) -> None:
        """Send a webhook once. Record in Redis that it is done, or when it is due again. Raises Busy."""
        try:
            body = self._body(due)
        except NotTheirs as error:
            JobLog(log, due.job_id).error("its webhook is given up, because its result is forged: %s", error)
            webhooks.delete(self._connection, due)
            return
        try:
            answer = post(due.url, body.encode(), self._headers(due, body), self._policy, sending.admit)
            sending.answered = True
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
        event = events.parse_one(due.event)
        if isinstance(event, UnknownEvent):  # of another release: what can be read of it
            return webhooks.body({"job_id": due.job_id, "type": event.type, **_fields(due.event)})
        if isinstance(event, Succeeded):
            event = event.model_copy(update={"result": linked(self._store, due.owner or None, event.result)})
        return webhooks.body(event.model_dump(mode="json", exclude_none=True))

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


def _fields(event: str) -> dict[str, Any]:
    """Return the fields of a stored event, whatever they are; none when it is no JSON object."""
    with suppress(ValueError, RecursionError):
        found = json.loads(event)
        return found if isinstance(found, dict) else {}
    return {}


def retry_after(text: str, now: datetime) -> float:
    """Return the seconds in a header Retry-After (RFC 9110, 10.2.3): a number, or a date; 0 if it is neither."""
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0
    return max(0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())
