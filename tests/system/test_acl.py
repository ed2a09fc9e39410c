"""Permissions in Redis: the user of each part can run the commands that the part needs, and no others."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from tests.support.events import queued
from tests.support.leasing import submit
from tests.support.paths import ROOT
from tests.support.servers import function
from tests.support.workers import worker
from upres.client import Client
from upres.console.doctor import redis_users
from upres.core import api_keys, events, keys, registry_lock
from upres.core.schema import Cancelled
from upres.core.settings import Settings
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local, redis_server

USERS = ("function", "worker", "gateway", "operator")
pytestmark = pytest.mark.without_worker


def made(passwords: dict[str, str], *files: str) -> "subprocess.CompletedProcess[str]":
    """Run infra/redis/users.sh with these variables."""
    command = ["sh", "infra/redis/users.sh", *(files or ["infra/redis/users.acl"])]
    environment = {"PATH": os.environ["PATH"], **passwords}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start a Redis server with the users of infra/redis/users.acl; return the URL of each user."""
    passwords = {f"UPRES_{user.upper()}_PASSWORD": secrets.token_hex(8) for user in USERS}
    folder, port = tmp_path_factory.mktemp("acl"), free_port()
    users = folder / "users.acl"
    users.write_text(made(passwords).stdout)
    command = [redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--aclfile", str(users), "--save", ""]
    server = Child("redis", command, {}, folder)
    server.wait_ready(lambda: accepts(port))
    yield {user: f"redis://{user}:{passwords[f'UPRES_{user.upper()}_PASSWORD']}@127.0.0.1:{port}" for user in USERS}
    server.stop()


@pytest.fixture
def operator(urls: dict[str, str]) -> Iterator[Redis]:
    with Redis.from_url(urls["operator"]) as connection:
        yield connection


def test_function_and_worker_run_jobs_with_their_own_redis_users(
    local: Local, urls: dict[str, str], tmp_path: Path, png: bytes, operator: Redis
) -> None:
    port = free_port()
    changed = {"UPRES_REDIS_URL": urls["function"], "UPRES_ACCESS": "keys", "UPRES_METRICS_PORT": str(port)}
    _, text = api_keys.create(operator, "somebody")
    for url in function(local, tmp_path, **changed):
        with worker(local, watcher=operator, UPRES_REDIS_URL=urls["worker"]), Client(url, text) as client:
            assert client.upscale(png, 2).result.width == 128
            again = client.submit(png, 4)
            assert client.cancel(again.job_id).status in ("cancelled", "succeeded")
            assert requests.get(f"{url}/readyz", timeout=20).ok
            assert "upres_worker_slots" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text


@pytest.mark.parametrize("user", ["function", "worker", "operator"])
def test_the_doctor_can_run_its_checks_with_the_redis_user_of_each_part(
    local: Local, urls: dict[str, str], user: str
) -> None:
    environment = {**os.environ, **local.environment, "UPRES_REDIS_URL": urls[user]}
    command = [str(Path(sys.executable).parent / "upres"), "doctor"]
    received = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout
    assert "✓ Redis rights       all that upres does" in received
    assert "✗ Redis persistence" in received  # this server has no append-only file
    assert received.count("✗") == 1


def test_a_gateway_can_serve_event_streams_but_cannot_submit_jobs(
    local: Local, urls: dict[str, str], tmp_path: Path, operator: Redis
) -> None:
    job_id = secrets.token_hex(16)
    key, text = api_keys.create(operator, "somebody")
    events.append(operator, queued(job_id).model_copy(update={"owner": key.key_id}))
    headers = {"Authorization": f"Bearer {text}"}
    for url in function(local, tmp_path, UPRES_REDIS_URL=urls["gateway"], UPRES_ACCESS="keys"):
        with requests.get(f"{url}/v1/jobs/{job_id}/events", headers=headers, stream=True, timeout=20) as stream:
            lines = stream.iter_lines()
            assert b"queued" in next(line for line in lines if line.startswith(b"data"))
            events.append(operator, Cancelled(job_id=job_id))
            assert b"cancelled" in next(line for line in lines if line.startswith(b"data"))
        body = {"image_url": "https://example.org/a.png"}
        assert requests.post(f"{url}/v1/jobs", json=body, headers=headers, timeout=20).status_code == 503


FORBIDDEN = {
    "function": ["KEYS *", "FLUSHALL", "CONFIG GET *", "GET other", "BLMOVE rq:queue:upres upres:popped 1 LEFT RIGHT",
                 "SUBSCRIBE other", "CLIENT LIST", "SCRIPT FLUSH", "ACL LIST", "SHUTDOWN", "SAVE",
                 "HSET upres:keys a b", "DEL upres:keys", "SET upres:worker:x 1", "SET upres:tile:x 1",
                 "SET upres:model:x 1"],
    "worker": ["KEYS *", "FLUSHALL", "CONFIG GET *", "GET other", "SUBSCRIBE upres:job:x", "ACL LIST", "SHUTDOWN",
               "MONITOR", "CLIENT KILL ID 1", "XRANGE other - +", "HGET upres:keys a", "HSET upres:keys a b",
               "GET upres:token-secret", "SET upres:token-secret x", "GET upres:idempotency:x", "DEL upres:keys"],
    "gateway": ["SET upres:job:x:run 1", "XADD upres:job:x:events * a b", "PUBLISH upres:job:x y", "EVAL 'return 1' 0",
                "LPUSH rq:queue:upres x", "HSET upres:keys a b", "HGETALL upres:keys", "GET upres:tile:x", "KEYS *",
                "DEL upres:job:x:events", "HGETALL rq:job:x"],
    "operator": ["FLUSHALL", "CONFIG GET *", "SHUTDOWN", "KEYS *", "MONITOR", "GET other"],
}  # fmt: skip


@pytest.mark.parametrize("user", USERS)
def test_each_redis_user_is_denied_the_commands_that_it_does_not_need(urls: dict[str, str], user: str) -> None:
    with Redis.from_url(urls[user]) as connection:
        assert connection.ping()
        for command in FORBIDDEN[user]:
            with pytest.raises(NoPermissionError):
                connection.execute_command(*command.replace("'return 1'", "return_1").split())


@pytest.mark.parametrize("user", ["worker", "operator"])
def test_who_changes_the_registry_of_models_may_lock_it(urls: dict[str, str], user: str) -> None:
    with Redis.from_url(urls[user]) as connection:
        with registry_lock.held(Settings(redis_url=urls[user])) as check_held:
            assert connection.exists(keys.REGISTRY_LOCK)
            check_held()
        assert not connection.exists(keys.REGISTRY_LOCK)


def test_redis_refuses_connections_without_a_user_name(urls: dict[str, str]) -> None:
    anonymous = urls["worker"].partition("@")[2]
    with Redis.from_url(f"redis://{anonymous}") as connection, pytest.raises(AuthenticationError):
        connection.ping()


def test_a_lua_script_has_only_the_permissions_of_the_user_who_runs_it(urls: dict[str, str]) -> None:
    with Redis.from_url(urls["worker"]) as connection:
        for command in ("'FLUSHALL'", "'GET', 'other'", "'KEYS', '*'", "'HGETALL', 'upres:keys'"):
            with pytest.raises(ResponseError, match="ACL failure"):
                connection.eval(f"return redis.call({command})", 0)


def test_an_operator_can_list_jobs_and_keys_and_append_events(
    local: Local, urls: dict[str, str], operator: Redis
) -> None:
    job_id = submit(operator)
    environment = {**os.environ, **local.environment, "UPRES_REDIS_URL": urls["operator"]}
    upres = str(Path(sys.executable).parent / "upres")
    for arguments, says in (
        (["jobs"], "waiting"),
        (["jobs", "show", job_id], "queued"),
        (["jobs", "dead"], ""),
        (["keys"], ""),
    ):
        done = subprocess.run([upres, *arguments], env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
    events.append(operator, Cancelled(job_id=job_id))
    assert operator.zscore(keys.DEADLINES, job_id) is None


@pytest.mark.parametrize("missing", [f"UPRES_{user.upper()}_PASSWORD" for user in USERS])
@pytest.mark.parametrize("value", ["", None])
def test_no_file_of_users_is_made_without_a_password_for_each(missing: str, value: str | None) -> None:
    passwords = {f"UPRES_{user.upper()}_PASSWORD": "x" for user in USERS} | {missing: value or ""}
    if value is None:
        del passwords[missing]
    done = made(passwords)
    assert (done.returncode, done.stdout) == (1, "")
    assert missing in done.stderr


@pytest.mark.parametrize(
    "files", [["nothing"], ["infra/redis/users.acl", "nothing"], ["/dev/null"], ["infra/kubernetes/scaler.acl"]]
)
def test_no_file_of_users_is_made_from_files_that_leave_redis_open(files: list[str]) -> None:
    passwords = {f"UPRES_{user.upper()}_PASSWORD": "x" for user in (*USERS, "scaler")}
    done = made(passwords, *files)
    assert (done.returncode, done.stdout) == (1, "")


def test_passwords_with_any_characters_are_those_that_redis_takes() -> None:
    """sed, with which they were inserted before, reads & and / in them."""
    password = "a/b&c$d`e\\f'g\"h é*"
    done = made({f"UPRES_{user.upper()}_PASSWORD": password for user in USERS})
    hashes = {line.split()[3] for line in done.stdout.splitlines() if line != "user default off"}
    assert hashes == {f"#{sha256(password.encode()).hexdigest()}"}


def test_redis_refuses_the_file_whose_variables_were_not_inserted(tmp_path: Path) -> None:
    for hashed in ("${UPRES_FUNCTION_PASSWORD_SHA256}", ""):
        lines = re.sub(r"\$\{\w+\}", hashed, (ROOT / "infra/redis/users.acl").read_text()).splitlines()
        users = tmp_path / "users.acl"
        users.write_text("\n".join(line for line in lines if line.startswith("user ")))
        command = [redis_server(), "--bind", "127.0.0.1", "--port", str(free_port()), "--aclfile", str(users)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1
        assert "password hash must be exactly 64 characters" in done.stdout


def test_the_doctor_finds_users_with_empty_passwords(local: Local, urls: dict[str, str], tmp_path: Path) -> None:
    users, port = tmp_path / "users.acl", free_port()
    users.write_text("user default on nopass ~* +@all\nuser worker on > +ping\nuser function on nopass +@all ~*\n")
    command = [redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--aclfile", str(users), "--save", ""]
    with Child("redis", command, {}, tmp_path) as server:
        server.wait_ready(lambda: accepts(port))
        with Redis.from_url(f"redis://function:x@127.0.0.1:{port}") as redis:
            found = redis_users.check(redis, f"redis://function:x@127.0.0.1:{port}")
        with Redis.from_url(f"redis://127.0.0.1:{port}") as redis:
            without_name = redis_users.check(redis, f"redis://127.0.0.1:{port}")
    assert (found.grade, without_name.grade) == ("fault", "fault")
    assert "as function, worker, default, with" in found.found
    assert "as function, worker, with" in without_name.found
    for url in urls.values():
        with Redis.from_url(url) as redis:
            assert redis_users.check(redis, url).grade == "ok"
