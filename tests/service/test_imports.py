"""Test that a new process of the function has loaded no large library after its first request."""

import os
import subprocess
import sys

from redis import Redis

from benchmarks.entry import ENTRY
from upres.core import api_keys
from upres.embedded.stack import Local

HEAVY = ("torch", "PIL", "numpy", "worker", "client", "infra", "boto3", "botocore", "requests", "prometheus_client")


def test_the_first_request_loads_no_large_library(local: Local, redis: Redis) -> None:
    _, key = api_keys.create(redis, "importer")
    code = f"{ENTRY}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    environment = {**os.environ, **local.environment, "UPRES_ACCESS": "keys", "KEY": key}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
