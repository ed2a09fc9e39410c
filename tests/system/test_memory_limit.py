"""A worker in a container with little memory: jobs that each fit alone do not kill it together."""

import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from tests.support.control_groups import memory_limit
from tests.support.images import encoded
from tests.support.paths import ROOT, SAMPLES
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import workers
from upres.core.queue import connect
from upres.core.schema import Started
from upres.embedded.stack import Local

pytestmark = [pytest.mark.without_worker, pytest.mark.timeout(400)]
LIMIT = 900 << 20


def test_jobs_that_fit_alone_do_not_kill_a_worker_together(local: Local) -> None:
    """Three JPEG results of 15.8 megapixels: one at a time the worker has a peak of 765 MiB, all together 1,039 MiB."""
    with Image.open(SAMPLES / "coffee.png") as photo:
        whole = photo.convert("RGB").resize((1100, 900))
    images = [encoded(whole.rotate(turn), "JPEG") for turn in (0, 1, 2)]
    with memory_limit(LIMIT) as group, connect(local.settings) as redis, Client(local.url) as client:
        join = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -m upres.worker"
        environment = {**os.environ, **local.environment, "UPRES_SLOTS": "3"}
        worker = subprocess.Popen(["sh", "-c", join], cwd=ROOT, env=environment)
        try:
            wait_until(lambda: workers.listing(redis) or worker.poll() is not None, 60)
            jobs = [client.submit(image, 4, output_format="jpeg").job_id for image in images]
            seen = {job_id: list(client.events(job_id)) for job_id in jobs}
            assert worker.poll() is None
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            wait_until(lambda: not (group / "cgroup.procs").read_text(), 20)
    assert [events[-1].type for events in seen.values()] == ["succeeded"] * 3
    assert all(sum(isinstance(event, Started) for event in events) == 1 for events in seen.values())
