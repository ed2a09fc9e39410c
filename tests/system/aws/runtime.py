"""Lambda on this machine: AWS's own runtime for Python, and the API that gives it events.

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
"""Longer than API Gateway waits."""


class FunctionFailed(Exception):
    """The function raised, or never began; the message is what it told the API of it."""


class Lambda:
    """A function under the real runtime. One event at a time, as on Lambda."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, api: "Api") -> None:
        self.process = process
        self._log = log
        self._api = api

    def invoke(self, event: object) -> Any:
        """What the function answers; FunctionFailed when it does not."""
        self._api.events.put(json.dumps(event))
        try:
            kind, body = self._api.answers.get(timeout=ANSWER_SECONDS)
        except Empty:
            raise FunctionFailed(f"no answer; its log:\n{self._log.read_text()}") from None
        if kind != "response":
            raise FunctionFailed(body)
        return json.loads(body)

    def log(self) -> list[str]:
        """All that the function has printed."""
        return self._log.read_text().splitlines()


@contextmanager
def running(handler: str, environment: Mapping[str, str], folder: Path, around: str = "") -> Iterator[Lambda]:
    """The function of this name, of nothing but the files that are bundled, and a module `around` with this source."""
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
    """What Lambda sets, and nothing that this process knows of another upres."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("UPRES_", "AWS_"))}
    reserved = {
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_NAME": NAME,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_RUNTIME_API": address,
    }
    return {**inherited, **environment, **reserved}


class Api(ThreadingHTTPServer):
    """Hands out events, and takes answers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.events: Queue[str] = Queue()
        self.answers: Queue[tuple[str, str]] = Queue()
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def server_close(self) -> None:
        """At the end of the block."""
        self.shutdown()
        self._thread.join()
        super().server_close()


class Handler(BaseHTTPRequestHandler):
    """The four requests of a runtime."""

    server: Api

    def do_GET(self) -> None:
        """…/invocation/next: the next event, however long it takes."""
        event = self.server.events.get().encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4()))
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + 29) * 1000)))
        self.send_header(
            "Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:us-east-1:012345678901:function:{NAME}"
        )
        self.send_header("Content-Type", "application/json")  # the runtime crashes without
        self.send_header("Content-Length", str(len(event)))
        self.end_headers()
        self.wfile.write(event)

    def do_POST(self) -> None:
        """…/invocation/{id}/response, …/invocation/{id}/error, …/init/error."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answers.put((self.path.rpartition("/")[2], body.decode()))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""
