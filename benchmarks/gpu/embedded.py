"""A running upres with a worker on the device, for the parts that need a real one: jobs, memory, faults."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from redis import Redis

from upres.client import Client
from upres.core import events
from upres.core.queue import connect
from upres.core.schema import Event, Succeeded, UnknownEvent
from upres.embedded.child import Child
from upres.embedded.stack import Local

POLL_SECONDS = 0.1
MODEL = "faithful"


class JobNotDone(Exception):
    """A job has not succeeded, though its worker runs."""


class Running(NamedTuple):
    """A running upres without a worker, and the device on which its workers are to run, `cuda` or `cpu`."""

    local: Local
    redis: Redis
    client: Client
    device: str

    @contextmanager
    def worker(self, name: str, *flags: str) -> Iterator[Child]:
        """Run a worker for the block: the plain one, or with flags that of benchmarks.gpu.worker."""
        changed = ["benchmarks.gpu.worker", "--device", self.device, *flags] if flags else ["upres.worker"]
        child = Child(name, [sys.executable, "-m", *changed], self.local.environment, self.local.folder)
        try:
            yield child
        finally:
            child.stop()
            print(f"--- {name}\n{child.log.read_text(errors='replace')}", flush=True)

    def wait_for(self, job_id: str, child: Child, seconds: float = 60) -> Succeeded:
        """Wait until a job has succeeded.

        Raises ChildDied when its worker ends before, JobNotDone when the job ends otherwise, or not in time.
        """
        deadline = time.monotonic() + seconds
        while not events.is_terminal(last := self.told(job_id)[-1]):
            child.check()
            if time.monotonic() > deadline:
                raise JobNotDone(f"{child.name} has not done its job within {seconds:g} seconds.")
            time.sleep(POLL_SECONDS)
        if not isinstance(last, Succeeded):
            raise JobNotDone(f"{child.name}: the job ended with {last.model_dump_json()}")
        return last

    def told(self, job_id: str) -> list[Event | UnknownEvent]:
        """Return the events of a job so far."""
        return [event for _, event in events.read(self.redis, job_id)]


@contextmanager
def upres(device: str) -> Iterator[Running]:
    """Run Redis, store and function for the block. Raises ChildDied when one of them, or a first worker, cannot start.

    That worker shows that a plain one starts on the device at all; it is stopped then.
    """
    environment = {"UPRES_DEVICE": device, "UPRES_MODEL": MODEL}
    if "UPRES_CACHE_DIR" in os.environ:
        environment["UPRES_CACHE_DIR"] = os.environ["UPRES_CACHE_DIR"]
    with Local(environment=environment) as local, connect(local.settings) as redis, Client(local.url) as client:
        local.stop("worker")
        yield Running(local, redis, client, device)
