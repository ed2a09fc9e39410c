"""What the entry function holds on to between requests: settings, Redis, the queue, the store."""

from functools import cached_property

from redis import Redis
from rq import Queue

from upres.core import api_keys, keys
from upres.core.queue import connect_quickly, open_queue
from upres.core.settings import Settings
from upres.core.storage import Store


class Services:
    """Made once per process; nothing connects before it is used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # People want an answer, and their programs ask again.
        self.store = Store(settings, patience=4, attempts=2)

    @cached_property
    def redis(self) -> Redis:
        """A pool of impatient connections: threads may share it."""
        return connect_quickly(self.settings)

    @cached_property
    def token_secret(self) -> bytes:
        """What tokens are signed with: the same for all processes of the function."""
        return api_keys.shared_secret(self.redis, keys.SIGNS_TOKENS)

    @cached_property
    def queue(self) -> Queue:
        """The job queue."""
        return open_queue(self.redis)
