"""Threads that tell addresses how jobs ended, signed, through the same checks as any address that a client gives."""

import logging
import threading
from collections import Counter
from datetime import UTC, datetime

from redis.exceptions import RedisError
from standardwebhooks import Webhook

from upres.core import webhooks
from upres.core.errors import FetchError, UrlRefused
from upres.core.logs import JobLog
from upres.core.queue import connect_quickly
from upres.core.results import linked
from upres.core.schema import EVENT, Succeeded
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.core.webhooks import Due
from upres.worker.fetch import FetchPolicy, post

log = logging.getLogger("upres.worker")

THREADS = 4
AT_ONCE = 2
"""So many for one owner, or one host, at a time: who is slow holds up no others."""
PUT_OFF_SECONDS = 2.0
POLL_SECONDS = 1.0
GONE = 410
"""By the rules, an address that answers so wants to hear no more of it."""


class WebhookDispatcher:
    """Tells what is due, by `threads` that somebody starts, until it is closed."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._connection = connect_quickly(settings)
        self._store = store
        self._policy = FetchPolicy(settings.fetch_private_networks, settings.fetch_hosts)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self.threads = [threading.Thread(target=self._run, name="webhooks", daemon=True) for _ in range(THREADS)]

    def close(self) -> None:
        """Begin no more."""
        self._closed.set()

    def _run(self) -> None:
        """Look, tell, and look again."""
        while not self._closed.is_set():
            try:
                if due := webhooks.due(self._connection):
                    self._in_turn(due)
                    continue
            except RedisError as error:
                log.warning("webhooks wait (%s)", error)
            except Exception:
                log.exception("a webhook failed")
            self._closed.wait(POLL_SECONDS)

    def _in_turn(self, due: Due) -> None:
        with self._lock:
            mine = self._busy[due.subject] < AT_ONCE
            self._busy[due.subject] += mine
        if not mine:
            webhooks.put_off(self._connection, due, PUT_OFF_SECONDS)
            return
        try:
            self._send(due)
        finally:
            with self._lock:
                self._busy[due.subject] -= 1
                self._busy += Counter()  # forgets who has none

    def _send(self, due: Due) -> None:
        """Once, now; and what comes of it."""
        body = self._body(due)
        try:
            status = post(due.url, body.encode(), self._headers(due, body), self._policy)
        except UrlRefused as error:
            JobLog(log, due.job_id).warning("its webhook is given up: %s", error)
            webhooks.done(self._connection, due)
            return
        except FetchError as error:
            status, why = 0, str(error)
        else:
            why = f"it answered {status}"
        if 200 <= status < 300 or status == GONE:
            webhooks.done(self._connection, due)
            return
        pause = webhooks.again(self._connection, due)
        then = f"again in {pause:.0f} s" if pause else "given up"
        JobLog(log, due.job_id).warning("its webhook was not delivered, %s: %s", why, then)

    def _body(self, due: Due) -> str:
        """The event; links work for an hour, so those of a late attempt are new."""
        event = EVENT.validate_json(due.event)
        if isinstance(event, Succeeded):
            event = event.model_copy(update={"result": linked(self._store, event.result)})
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
