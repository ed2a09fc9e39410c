"""A thread that tells addresses how jobs ended, signed, through the same checks as any address that a client gives."""

import logging
import threading
from datetime import UTC, datetime

from redis.exceptions import RedisError
from standardwebhooks import Webhook

from core import webhooks
from core.errors import FetchError
from core.queue import connect_quickly
from core.settings import Settings
from core.webhooks import Due
from worker.fetch import Reach, post

log = logging.getLogger("upres.worker")

LOOK_SECONDS = 1.0
GONE = 410
"""By the rules, an address that answers so wants to hear no more of it."""


class Bell(threading.Thread):
    """Tells one after the other, until it is closed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="webhooks", daemon=True)
        self._connection = connect_quickly(settings)
        self._reach = Reach(settings.fetch_private_networks, settings.fetch_hosts)
        self._closed = threading.Event()

    def run(self) -> None:
        """Look, tell, and look again."""
        while not self._closed.is_set():
            try:
                if due := webhooks.due(self._connection):
                    self._tell(due)
                    continue
            except RedisError as error:
                log.warning("webhooks wait (%s)", error)
            except Exception:
                log.exception("a webhook failed")
            self._closed.wait(LOOK_SECONDS)

    def close(self) -> None:
        """Begin no more."""
        self._closed.set()

    def _tell(self, due: Due) -> None:
        try:
            status = post(due.url, due.body.encode(), self._headers(due), self._reach)
        except FetchError as error:
            status, why = 0, str(error)
        else:
            why = f"it answered {status}"
        if 200 <= status < 300 or status == GONE:
            webhooks.done(self._connection, due)
            return
        pause = webhooks.again(self._connection, due)
        then = f"again in {pause:.0f} s" if pause else "given up"
        log.warning("job %s: its webhook was not delivered, %s: %s", due.job_id, why, then)

    def _headers(self, due: Due) -> dict[str, str]:
        at = datetime.now(UTC)
        signer = Webhook(webhooks.secret(self._connection, due.owner or None))
        return {
            "Content-Type": "application/json",
            "User-Agent": "upres",
            "webhook-id": due.message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signer.sign(due.message_id, at, due.body),
        }
