"""A deploy: functions, workers and Redis are replaced one after the other, while clients submit and follow jobs."""

import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from redis import Redis

from tests.chaos import images
from tests.chaos.fleet import Fleet
from tests.chaos.others import all_succeeded
from tests.chaos.proxy import FaultProxy
from tests.chaos.scenarios import Outcome, check, events_after_the_end
from upres.client import Client
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

CLIENTS = 3
STOP_SECONDS = 60
"""Workers may finish their jobs."""


def restarts(local: Local, log: IO[bytes], seed: int, rounds: int) -> Outcome:
    """Replace every part `rounds` times, as docs/operations.md says: no client sees an error, no job runs twice."""
    outcome = Outcome("rolling restarts", {"of each part": rounds})
    rng, over = random.Random(seed), threading.Event()
    redis = Redis.from_url(local.settings.redis_url)
    with FaultProxy() as proxy, Fleet(local, 2, log, UPRES_STOP_SECONDS=str(STOP_SECONDS)) as fleet:
        function = start_function(local, proxy)
        fleet.wait_ready(redis)
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(use, proxy.port, random.Random(rng.random()), over) for _ in range(CLIENTS)]
            try:
                for _ in range(rounds):
                    time.sleep(1)
                    fleet.terminate(rng)
                    fleet.wait_ready(redis)
                    former, function = function, start_function(local, proxy)
                    former.stop()
                    local.stop("redis")
                    local.start("redis")
            finally:
                over.set()
            ids = [job_id for client in clients for job_id in client.result()]
        fleet.drain(STOP_SECONDS)
        outcome.faults += [f"a worker ended with {code}" for code in fleet.unexpected()]
        function.stop()
    check(outcome, events_after_the_end(redis, ids, 30), redis)
    return all_succeeded(outcome)


def start_function(local: Local, proxy: FaultProxy) -> Child:
    """Start a function, and let new connections lead to it."""
    port = free_port()
    command = [sys.executable, "-m", "upres.function", "--port", str(port)]
    child = Child(f"function-{port}", command, local.environment, local.folder)
    child.wait_ready(lambda: accepts(port))
    proxy.target = port
    return child


def use(port: int, rng: random.Random, over: threading.Event) -> list[str]:
    """Enlarge images, one after the other, until `over` is set. Returns the jobs' ids; raises what a client raises."""
    ids = []
    with Client(f"http://127.0.0.1:{port}") as client:
        while not over.is_set():
            ids.append(client.upscale(images.image(rng, 0.1), 4).job_id)
    return ids
