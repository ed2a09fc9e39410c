"""Cold start of the function: a new process until its first request with an API key is accepted.

    python -m benchmarks.entry

The peer imports rq, redis, pydantic and boto3 and does nothing else. Whole processes are timed, alternately.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from benchmarks.report import emit
from upres.core import api_keys
from upres.core.queue import connect
from upres.embedded.stack import Local

PEER = "import rq, redis, pydantic, boto3"
ENTRY = """
import json, os
from upres.function.handler import handler
event = {
    "version": "2.0", "rawPath": "/v1/jobs", "rawQueryString": "",
    "headers": {"host": "api.example.org", "content-type": "application/json",
                "authorization": "Bearer " + os.environ["KEY"]},
    "requestContext": {"http": {"method": "POST", "path": "/v1/jobs", "sourceIp": "192.0.2.1"}, "stage": "$default"},
    "body": json.dumps({"image_url": "https://example.org/photo.png"}), "isBase64Encoded": False,
}
answer = handler(event, None)
assert answer["statusCode"] == 202, answer
"""


def seconds(code: str, environment: dict[str, str]) -> float:
    """Wall-clock seconds of a new Python process that runs the code."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - begin


def main() -> int:
    """Print one JSON line: the medians of the function and of the peer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.entry", description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="runs of each process (default: 15)")
    runs: int = parser.parse_args().runs
    with Local() as local:
        local.stop("worker")
        with connect(local.settings) as redis:
            _, key = api_keys.create(redis, "benchmark", requests_per_minute=1000)
        environment = {**os.environ, **local.environment, "UPRES_ACCESS": "keys", "KEY": key}
        times = [(seconds(ENTRY, environment), seconds(PEER, environment)) for _ in range(runs + 1)][1:]
    ours, peer = (statistics.median(column) * 1000 for column in zip(*times, strict=True))
    emit("entry.cold_start", ours, "ms", "bare import of rq, redis, pydantic, boto3", peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
