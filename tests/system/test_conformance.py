"""Schemathesis compares the responses of a running server with its OpenAPI document."""

import subprocess
import sys
from pathlib import Path

import pytest

from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


def test_schemathesis_finds_no_difference_between_server_and_openapi(local: Local) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{local.url}/openapi.json",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=50",
        "--max-time=40",
        "--exclude-operation-id=followJob",  # without a worker, the event stream of a job never ends
        # A request that is valid by the schema may contain data that is no image; the server rejects it.
        "--exclude-checks=positive_data_acceptance",
        "--no-color",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-4000:]
