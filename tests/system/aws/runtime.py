"""Lambda on this machine: AWS's own runtime client for Python, and a local Runtime API that sends it events.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from infra.aws import bundle

NAME = "upres-test"
ANSWER_SECONDS = 60
"""Timeout of one invocation; longer than the timeout of API Gateway."""


class FunctionFailed(Exception):
    """The function raised an exception or did not start; the message is what the runtime reported to the API."""


class Lambda:
    """A function that runs under the real Lambda runtime and handles one event at a time, as on Lambda."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, api: "Api") -> None:
        self.process = process
        self._log = log
        self._api = api

    def invoke(self, event: object, seconds: float = 29) -> Any:
        """Send the event, which Lambda would end after `seconds`; return the response of the function.

        Raises FunctionFailed on an error or a timeout.
        """
        self._api.events.put((json.dumps(event), seconds))
        try:
            kind, body = self._api.answers.get(timeout=ANSWER_SECONDS)
        except Empty:
            raise FunctionFailed(f"no answer; its log:\n{self._log.read_text()}") from None
        if kind != "response":
            raise FunctionFailed(body)
        return json.loads(body)

    def log(self) -> list[str]:
        """Return the lines that the function printed so far."""
        return self._log.read_text().splitlines()


@contextmanager
def running(handler: str, environment: Mapping[str, str], folder: Path, around: str = "") -> Iterator[Lambda]:
    """Run this handler with only the bundled files in `folder`, plus a module `around` with the given source."""
    bundle.copy_sources(folder)
    (folder / "around.py").write_text(around)
    log = folder / "log"
    with Api() as api, log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            cwd=folder,
            env=_environment(environment, api.address),
            stdout=out,
            stderr=out,
        )
        try:
            yield Lambda(process, log, api)
        finally:
            process.kill()
            process.wait()


def _environment(environment: Mapping[str, str], address: str) -> dict[str, str]:
    """Return the variables that Lambda sets, and the inherited ones except UPRES_* and AWS_*."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("UPRES_", "AWS_"))}
    reserved = {
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_NAME": NAME,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_RUNTIME_API": address,
    }
    return {**inherited, **environment, **reserved}


class Api(ThreadingHTTPServer):
    """A local Lambda Runtime API: it sends events to the runtime and collects the responses."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.events: Queue[tuple[str, float]] = Queue()
        self.answers: Queue[tuple[str, str]] = Queue()
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def server_close(self) -> None:
        """Stop the server thread; called at the end of the `with` block."""
        self.shutdown()
        self._thread.join()
        super().server_close()


class Handler(BaseHTTPRequestHandler):
    """Handles the four requests of a Lambda runtime: next event, response, error, initialisation error."""

    server: Api

    def do_GET(self) -> None:
        """…/invocation/next: wait without a timeout for the next event, and send it."""
        text, seconds = self.server.events.get()
        event = text.encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4()))
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + seconds) * 1000)))
        self.send_header(
            "Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:us-east-1:012345678901:function:{NAME}"
        )
        self.send_header("Content-Type", "application/json")  # the runtime crashes without this header
        self.send_header("Content-Length", str(len(event)))
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        """…/invocation/{id}/response, …/invocation/{id}/error, …/init/error: store what the runtime reports."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers.put((self.path.rpartition("/")[2], body.decode()))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write no access log."""
