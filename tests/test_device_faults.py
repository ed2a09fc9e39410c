"""A worker process whose device fails, from outside: the real service, with a device that does as it is told."""

import os
import subprocess
import sys

import pytest
from redis import Redis

from upres.client import Client
from upres.core import keys
from upres.core.schema import Progress, Started
from upres.embedded.stack import Local
from upres.worker.service import RESTART

FAULTY = """
import sys
from upres.worker.engine import compute, runtimes, torch_compute
from upres.worker import service
from upres.worker.__main__ import main

class Faulty(torch_compute.TorchCompute):
    def __init__(self, model, device, cache):
        super().__init__(model, "cpu", "float32")
        self.calls = 0

    def start(self, factor, windows):
        self.calls += 1
        if self.calls > 4:  # after warming up and the golden images
            {fault}
        return super().start(factor, windows)

runtimes.choose = Faulty
sys.argv = ["worker"]
sys.exit(main())
"""
LOST = "raise RuntimeError('CUDA error: an illegal memory access was encountered')"
SILENT = "from upres.worker.engine import device; device._memory = None; import time; time.sleep(3); " + LOST
"""The driver does not tell of its memory any more either, and workers have asked since."""
TIGHT = "if sum(w.shape[0] * w.shape[1] for w in windows) > 150 * 150: raise compute.OutOfMemory('pretended')"


def faulty(local: Local, fault: str) -> "subprocess.Popen[bytes]":
    code = FAULTY.format(fault=fault)
    environment = {**os.environ, **local.environment, "UPRES_SLOTS": "2"}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


@pytest.mark.parametrize("fault", [LOST, SILENT])
def test_a_lost_device_ends_the_worker_and_gives_its_jobs_back(
    local: Local, redis: Redis, png: bytes, fault: str
) -> None:
    local.stop("worker")
    with Client(local.url) as client:
        job_id = client.submit(png, 2).job_id
        with faulty(local, fault) as worker:
            assert worker.wait(60) == RESTART
        assert redis.lpos("rq:queue:upres", job_id) is not None
        local.start("worker")
        told = list(client.events(job_id))
    assert [event.attempt for event in told if isinstance(event, Started)] == [1, 2]
    assert told[-1].type == "succeeded"


@pytest.mark.usefixtures("held")
def test_short_memory_is_told_and_remembered(local: Local, redis: Redis, png: bytes) -> None:
    with Client(local.url) as client, faulty(local, TIGHT) as worker:
        told = list(client.events(client.submit(png, 8).job_id))
        worker.terminate()
        worker.wait(30)
    notices = [event.notice for event in told if isinstance(event, Progress) and event.notice]
    assert notices
    assert "short of memory" in notices[0]
    assert told[-1].type == "succeeded"
    [key] = redis.keys("upres:tile:*")
    assert int(redis.get(key) or 0) < 640
    assert 0 < redis.ttl(key) <= keys.TILE_SECONDS
    redis.delete(key)
