"""Foreign clients of server-sent events follow a job: of other authors, with parsers of their own."""

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from redis import Redis

from tests.chaos.proxy import FaultProxy
from tests.support.events import RESULT
from tests.support.npm import project
from tests.support.streams import follow, frames
from upres.core.schema import Event, Progress, Succeeded
from upres.core.script import call
from upres.embedded.stack import Local

pytestmark = [pytest.mark.without_worker, pytest.mark.timeout(300)]
PACKAGES = ("sseclient-py==1.9.0", "httpx-sse==0.4.3", "launchdarkly-eventsource==1.7.4", "aiohttp-sse-client2==0.3.0")
SEPARATORS = "a\u2028b\u2029c\x85d é 猫 😀"
"""Some parsers divide lines at more characters than CR and LF."""
PLACEHOLDER = "PLACEHOLDER"

# Each prints the data of each event as a line, and ends after the terminal one.
BEGIN = "import json, sys\nurl = sys.argv[1]\ndef ends(data):\n    print(data, flush=True)\n"
BEGIN += "    return json.loads(data)['type'] == 'succeeded'\n"
PYTHON = {
    "sseclient-py": """
import requests, sseclient
response = requests.get(url, stream=True, timeout=30, headers={"Accept": "text/event-stream"})
for event in sseclient.SSEClient(response).events():
    if ends(event.data):
        break
""",
    "httpx-sse": """
import httpx, httpx_sse
with httpx.Client(timeout=30) as client, httpx_sse.connect_sse(client, "GET", url) as source:
    for event in source.iter_sse():
        if ends(event.data):
            break
""",
    "launchdarkly-eventsource": """
import ld_eventsource
from ld_eventsource.config import ErrorStrategy
client = ld_eventsource.SSEClient(url, error_strategy=ErrorStrategy.always_continue(), initial_retry_delay=0.1)
for event in client.events:
    if ends(event.data):
        break
""",
    "aiohttp-sse-client2": """
import asyncio
from datetime import timedelta
from aiohttp_sse_client2.client import EventSource
async def main():
    async with EventSource(url, reconnection_time=timedelta(milliseconds=100)) as source:
        async for event in source:
            if ends(event.data):
                break
asyncio.run(main())
""",
}
NODE = """
import { EventSource } from "eventsource";
const source = new EventSource(process.argv[1]);
source.onmessage = (event) => console.log(event.data);
source.onerror = (event) => { if (source.readyState === EventSource.CLOSED) process.exit(event.code === 204 ? 0 : 1); };
"""
RECONNECTING = ("launchdarkly-eventsource", "eventsource")
"""These open a new connection by themselves, and send the id of the last event."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages from PyPI and npm."""
    folder = project(tmp_path_factory.mktemp("clients"), "eventsource@4.1.1")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", "python"]
    subprocess.run([*command, *PACKAGES], cwd=folder, check=True, timeout=280)
    return folder


def start(name: str, folder: Path, url: str) -> "subprocess.Popen[str]":
    """Start a client that follows the job at this URL."""
    if name == "eventsource":
        command = ["node", "--input-type=module", "--eval", NODE, url]
    elif name == "curl":
        command = ["sh", "-c", 'curl -sN "$1" | sed -un "s/^data: //p"', "curl", url]
    else:
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, 'python')\n{BEGIN}{PYTHON[name]}", url]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def lines(output: IO[str] | None, number: int) -> list[str]:
    """The next lines, which end with a line feed and not with what str.splitlines takes for an end, too."""
    assert output
    return [output.readline().removesuffix("\n") for _ in range(number)]


def append(redis: Redis, event: Event) -> None:
    """Append an event as an earlier version could: this one puts no separators into the text of events."""
    text = event.model_dump_json(exclude_none=True).replace(PLACEHOLDER, SEPARATORS)
    call(redis, "append", event.job_id, secrets.token_hex(8), "", event.type, text, "", "")


@pytest.mark.parametrize("name", [*PYTHON, "eventsource", "curl"])
def test_a_foreign_client_gets_every_event_once_and_ends(
    local: Local, redis: Redis, installed: Path, job_id: str, name: str
) -> None:
    more: list[Event] = [
        Progress(job_id=job_id, stage="fetch", percent=1, notice=PLACEHOLDER),
        Progress(job_id=job_id, stage="upscale", percent=50),
        Succeeded(job_id=job_id, result=RESULT),
    ]
    with FaultProxy(int(local.url.rpartition(":")[2])) as proxy:
        client = start(name, installed, f"http://127.0.0.1:{proxy.port}/v1/jobs/{job_id}/events")
        try:
            received = lines(client.stdout, 1)
            if name in RECONNECTING:
                proxy.reset()
            for event in more:
                append(redis, event)
                received += lines(client.stdout, 1)
            assert (client.wait(20), lines(client.stdout, 1)) == (0, [""])
        finally:
            client.kill()
            client.wait()
            client.communicate()
    assert received == [frame.data for frame in frames(follow(local, job_id))]
    assert json.loads(received[1])["notice"] == SEPARATORS
