"""The function in a container of the manifest's size: many large bodies at once do not kill it."""

import base64
import os
import re
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.support.control_groups import memory_limit
from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from upres.core import api_keys
from upres.core.queue import connect
from upres.embedded.child import accepts, free_port
from upres.embedded.stack import Local
from upres.function import limits

pytestmark = [pytest.mark.without_worker, pytest.mark.timeout(300)]
IDLE = 110 << 20
"""Most bytes that the function takes after its first requests."""
OTHER = 90 << 20
"""Most bytes that 46 requests take besides the images: pieces of their bodies, threads, connections to the store."""
MANIFEST = ROOT / "infra" / "kubernetes" / "base" / "function.yaml"


def send(url: str, text: str, body: bytes) -> list[int]:
    """Send a body until it is accepted, as the clients do, but without their pauses. Return all statuses."""
    statuses = []
    for _ in range(600):
        answer = requests.post(f"{url}/v1/jobs", data=body, headers={"Authorization": f"Bearer {text}"}, timeout=60)
        statuses.append(answer.status_code)
        if answer.status_code == 202:
            return statuses
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0
        time.sleep(0.1)
    raise AssertionError("it was never accepted")


def memory_of(pid: int) -> tuple[int, int]:
    """The most memory that a process has used, and what it uses now, in bytes (proc(5))."""
    lines = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    most, now = (int(lines[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))
    print(f"memory of the function in MiB: at most {most >> 20}, afterwards {now >> 20}")
    return most, now


def test_many_large_bodies_at_once_are_accepted_in_the_memory_of_the_manifest(local: Local) -> None:
    [limit] = re.findall(r"limits:\n +memory: (\d+)Mi", MANIFEST.read_text())
    port = free_port()
    with memory_limit(int(limit) << 20) as group, connect(local.settings) as redis:
        keys = [api_keys.create(redis, "somebody")[1] for _ in range(46)]
        join = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -m upres.function --port {port}"
        environment = {**os.environ, **local.environment, "UPRES_ACCESS": "keys", "UPRES_MAX_INPUT_MEGABYTES": "20"}
        function = subprocess.Popen(["sh", "-c", join], cwd=ROOT, env=environment)
        try:
            wait_until(lambda: accepts(port) or function.poll() is not None, 60)
            sizes = [4_000_000] * 40 + [20_000_000] * 6
            files = {size: base64.b64encode(secrets.token_bytes(size)) for size in set(sizes)}
            bodies = {size: b'{"image_base64":"' + text + b'"}' for size, text in files.items()}
            with ThreadPoolExecutor(len(sizes)) as pool:
                sent = [
                    pool.submit(send, f"http://127.0.0.1:{port}", key, bodies[size])
                    for key, size in zip(keys, sizes, strict=True)
                ]
                statuses = [status for one in sent for status in one.result()]
            assert function.poll() is None
            most, now = memory_of(function.pid)
        finally:
            function.kill()
            function.wait()
    assert statuses.count(202) == 46
    assert most < limits.BODIES_BYTES + IDLE + OTHER
    assert now < IDLE + OTHER, "what bodies took is given back"
