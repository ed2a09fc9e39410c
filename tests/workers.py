"""Workers of a test's own: the real service, with a line or two changed before it starts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from tests.waiting import wait_until
from upres.core import workers
from upres.core.queue import connect
from upres.embedded.stack import Local

MAIN = """
import sys
{patch}
from upres.worker.__main__ import main
sys.argv = ["worker"]
sys.exit(main())
"""
SHORT_LEASES = "from upres.core import keys; keys.LEASE_SECONDS = 2; keys.BEAT_SECONDS = 0.3"
"""A killed worker's jobs are free after two seconds instead of twelve."""


@contextmanager
def worker(
    local: Local, patch: str = "", watcher: Redis | None = None, **environment: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """A worker process that takes jobs; killed at the end, if it has not ended. Seen with the watcher's eyes."""
    with watcher or connect(local.settings) as connection:
        before = {one.name for one in workers.listing(connection)}
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN.format(patch=patch)], env={**os.environ, **local.environment, **environment}
        )
        try:
            wait_until(lambda: bool({one.name for one in workers.listing(connection)} - before))
            yield process
        finally:
            process.kill()
            process.wait()
            for one in workers.listing(connection):
                if one.name not in before:
                    workers.leave(connection, one.name)
