"""The objects that the function keeps between requests: settings, Redis, queue and store."""

from functools import cached_property

from redis import Redis
from rq import Queue
from starlette.requests import HTTPConnection

from upres.core import api_keys, keys
from upres.core.queue import connect_with_timeout, open_queue
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.function.link_pace import LinkPace


class Services:
    """The shared objects of one process. Each connects at its first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # Short timeouts: users wait for the answer, and their clients retry.
        self.store = Store(settings, timeout=4, attempts=2)
        self.links = LinkPace()

    def address(self, request: HTTPConnection) -> str:
        """The address of the function that answers name to the client of a request: UPRES_PUBLIC_URL, if it is set."""
        return (self.settings.public_url or str(request.base_url)).rstrip("/")

    @cached_property
    def redis(self) -> Redis:
        """Redis with short timeouts. Threads may share it."""
        return connect_with_timeout(self.settings)

    @property
    def token_secret(self) -> bytes:
        """The secret that signs tokens, the same for all processes of the function.

        It is read each time: a process that kept an old one would make tokens that no process accepts.
        """
        return api_keys.shared_secret(self.redis, keys.JOB_SIGNING_KEY)

    @cached_property
    def queue(self) -> Queue:
        """The RQ queue."""
        return open_queue(self.redis)
