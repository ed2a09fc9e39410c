"""Accepted requests a second: jobs that are stored when the answer comes, against a server that does nothing.

    python -m benchmarks.accepting [--seconds N]

The peer is LitServe with an API that returns a constant: it has no queue and no store, and loses what it has when it
ends. `make .venv-litserve/installed` installs it in an environment of its own. Requests are sent on 1 and on 8
connections, with the address of an image, and with an image of 16×16 pixels in base64. No worker runs. Both servers
have one process that answers; they are measured in turns.
"""

import argparse
import asyncio
import base64
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import emit
from benchmarks.service import tiny
from upres.embedded.child import accepts, free_port
from upres.embedded.stack import Local

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-litserve" / "bin" / "python"
NO_OP = """
import sys
import litserve

class NoOp(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request

    def predict(self, request):
        return {"status": "ok"}

    def encode_response(self, answer):
        return answer

if __name__ == "__main__":
    server = litserve.LitServer(NoOp(), accelerator="cpu")
    port = int(sys.argv[1])
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="error")
"""
CONNECTIONS = (1, 8)
TURNS = 3
START_SECONDS = 60


@contextmanager
def no_op() -> Iterator[int]:
    """Run LitServe's no-op server for the block; yields its port on 127.0.0.1."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        (script := Path(folder, "no_op.py")).write_text(NO_OP)
        command = [str(PYTHON), str(script), str(port)]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True) as server:
            try:
                until = time.monotonic() + START_SECONDS
                while not accepts(port):
                    assert server.poll() is None, "LitServe ended"
                    assert time.monotonic() < until, "LitServe does not answer"
                    time.sleep(0.1)
                yield port
            finally:
                os.killpg(server.pid, signal.SIGKILL)  # it has child processes, and may wait for them without end


def rate(port: int, path: str, body: Callable[[], object], connections: int, seconds: float) -> float:
    """Requests a second that are answered with success, on so many connections; each sends the next after an answer."""
    return asyncio.run(_rate(port, path, body, connections, seconds))


async def _rate(port: int, path: str, body: Callable[[], object], connections: int, seconds: float) -> float:
    begin = time.perf_counter()
    senders = (_send(port, path, body, begin + seconds) for _ in range(connections))
    return sum(await asyncio.gather(*senders)) / (time.perf_counter() - begin)


async def _send(port: int, path: str, body: Callable[[], object], until: float) -> int:
    """Send requests on one connection until a time; return their number."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < until:
        document = json.dumps(body()).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(document)}\r\n\r\n".encode() + document)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        text = await reader.readexactly(length)
        assert answer.split()[1] in (b"200", b"202"), text
        count += 1
    writer.close()
    return count


def main() -> int:
    """Print one JSON line for each kind of request and number of connections: medians of TURNS turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accepting", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="duration of each measurement (default: 5)")
    seconds: float = parser.parse_args().seconds
    if not PYTHON.exists():
        print("LitServe is missing: make .venv-litserve/installed", file=sys.stderr)
        return 1
    image = base64.b64encode(tiny()).decode()
    bodies: dict[str, Callable[[], object]] = {
        "image_url": lambda: {"image_url": "https://example.org/photo.png"},
        "image_base64": lambda: {"image_base64": image},
    }
    with Local() as local, no_op() as peer:
        local.stop("worker")
        ours = int(local.url.rpartition(":")[2])
        for name, body in bodies.items():
            for connections in CONNECTIONS:
                turns = [
                    (
                        rate(ours, "/v1/jobs", body, connections, seconds),
                        rate(peer, "/predict", body, connections, seconds),
                    )
                    for _ in range(TURNS)
                ]
                accepted, done = (statistics.median(column) for column in zip(*turns, strict=True))
                emit(f"accepting.{name}.{connections}", accepted, "requests/s", "LitServe's no-op", done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
