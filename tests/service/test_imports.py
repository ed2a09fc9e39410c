"""Which libraries a new process loads: none that is large for the first request, none of a server for `--local`."""

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


def test_the_local_engine_needs_no_package_of_a_server() -> None:
    """The extra `local` does not install these."""
    server = ("redis", "rq", "boto3", "botocore", "prometheus_client", "starlette", "uvicorn")
    code = f"import upres.models.inprocess, sys\nprint([name for name in {server!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
