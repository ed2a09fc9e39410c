"""A variant of the running upres without a worker, so that jobs stay queued."""

from pathlib import Path
from typing import Any, Self, cast

from upres.core import events, keys
from upres.core.queue import connect, open_queue
from upres.core.schema import Cancelled
from upres.embedded.stack import Local

DATABASE = 2


class WithoutWorker(Local):
    """Shares the store and the Redis server of a running upres, with its own Redis database and function; no worker."""

    def __init__(self, whole: Local) -> None:
        super().__init__()
        self.redis_port, self.folder = whole.redis_port, Path(whole.folder)
        address = f"redis://127.0.0.1:{self.redis_port}/{DATABASE}"
        self.environment = {**whole.environment, "UPRES_REDIS_URL": address, "UPRES_URL": self.url}

    def __enter__(self) -> Self:
        self.start("function")
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop("function")

    def clear(self) -> None:
        """Cancel all unfinished jobs and empty the queue."""
        with connect(self.settings) as connection:
            for job_id in cast("list[bytes]", connection.zrange(keys.DEADLINES, 0, -1)):
                events.append(connection, Cancelled(job_id=job_id.decode()))
            cast(Any, open_queue(connection)).empty()
