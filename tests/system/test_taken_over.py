"""A part that was taken over stops Redis with an endless script: what docs/operations.md tells the operator works."""

import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.retry import Retry

from tests.support.leasing import submit
from tests.support.waiting import wait_until
from tests.system.test_acl import USERS, made
from upres.core import keys
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import redis_server

ENDLESS = "while true do end"
WRITING = f"redis.call('SET', 'upres:tile:x', 1) {ENDLESS}"


class Server:
    """A Redis server with the users of upres, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._passwords = {user: secrets.token_hex(8) for user in USERS}
        self.users = folder / "users.acl"
        self.users.write_text(made({f"UPRES_{user.upper()}_PASSWORD": self._passwords[user] for user in USERS}).stdout)
        self.start()

    def start(self) -> None:
        command = [redis_server(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        options = ["--aclfile", str(self.users), "--appendonly", "yes", "--save", "", "--busy-reply-threshold", "50"]
        self.child = Child("redis", [*command, *options], {}, self._folder)
        self.child.wait_ready(lambda: accepts(self.port))

    def connect(self, user: str) -> Redis:
        once = Retry(NoBackoff(), 0)
        return Redis(port=self.port, username=user, password=self._passwords[user], socket_timeout=10, retry=once)

    def is_busy(self) -> bool:
        try:
            return not self.connect("function").ping()
        except ResponseError as error:
            return str(error).startswith("BUSY")

    def occupy(self, script: str) -> threading.Thread:
        """Run an endless script as the worker; return when no other command is served any more."""

        def run() -> None:
            with suppress(RedisError), self.connect("worker") as worker:
                worker.eval(script, 0)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        wait_until(self.is_busy)
        return thread


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.child.kill()


def test_an_operator_ends_an_endless_script_of_a_worker(server: Server) -> None:
    script = server.occupy(ENDLESS)
    with server.connect("operator") as operator:
        operator.script_kill()
        script.join(10)
        assert server.connect("function").ping()


def test_the_user_of_a_part_is_taken_away_and_no_job_is_lost(server: Server) -> None:
    """A script that has written can neither be killed nor be ended by SIGTERM."""
    with server.connect("operator") as operator:
        job_id = submit(operator)
        operator.execute_command("WAITAOF", 1, 0, 5000)
    script = server.occupy(WRITING)
    with server.connect("operator") as operator, pytest.raises(ResponseError, match="UNKILLABLE"):
        operator.script_kill()
    server.users.write_text(re.sub(r"(?m)^user worker on .*$", "user worker off", server.users.read_text()))
    server.child.kill()
    script.join(10)
    server.start()
    with server.connect("worker") as worker, pytest.raises(AuthenticationError):
        worker.ping()
    with server.connect("function") as function:
        assert function.exists(keys.events(job_id), keys.record(job_id)) == 2
