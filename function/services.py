"""The objects that the function keeps between requests: settings, Redis, queue and store."""

import time
from functools import cached_property

from redis import Redis
from rq import Queue

from upres.core import api_keys, keys
from upres.core.queue import connect_with_timeout, open_queue
from upres.core.settings import Settings
from upres.core.storage import Store

TOKEN_SECRET_SECONDS = 60


class Services:
    """The shared objects of one process. Each connects at its first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Short timeouts: users wait for the answer, and their clients retry.
        self.store = Store(settings, timeout=4, attempts=2)
        self._token_secret, self._token_secret_until = b"", 0.0

    @cached_property
    def redis(self) -> Redis:
        """Redis with short timeouts. Threads may share it."""
        return connect_with_timeout(self.settings)

    @property
    def token_secret(self) -> bytes:
        """The secret that signs tokens, the same for all processes of the function; read once a minute.

        It changes when Redis was emptied. A process that kept the old one would refuse the tokens of all others.
        """
        if time.monotonic() > self._token_secret_until:
            return self.renewed_token_secret()
        return self._token_secret

    def renewed_token_secret(self) -> bytes:
        """Read the secret that signs tokens again, and return it."""
        self._token_secret = api_keys.shared_secret(self.redis, keys.JOB_SIGNING_KEY)
        self._token_secret_until = time.monotonic() + TOKEN_SECRET_SECONDS
        return self._token_secret

    @cached_property
    def queue(self) -> Queue:
        """The RQ queue."""
        return open_queue(self.redis)
