"""Redis as a boundary: each part does its work with its own user, and nothing else."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
import requests
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from client import Client
from core import access, events, keys
from core.schema import Cancelled
from infra.local import Local
from tests.conftest import ROOT
from tests.leasing import submit
from tests.test_events import queued
from tests.test_outages import function
from tests.workers import worker

USERS = ("function", "worker", "gateway", "operator")
pytestmark = pytest.mark.usefixtures("held")


@pytest.fixture(scope="module")
def urls(local: Local) -> Iterator[dict[str, str]]:
    """The users of infra/redis/users.acl, each with its address of the running Redis."""
    passwords = {f"UPRES_{user.upper()}_PASSWORD": secrets.token_hex(8) for user in USERS}
    text = Template((ROOT / "infra/redis/users.acl").read_text()).substitute(passwords)
    with Redis.from_url(local.settings.redis_url) as admin:
        for line in text.splitlines():
            if line.startswith("user ") and not line.startswith("user default"):
                admin.execute_command("ACL", "SETUSER", *line.split()[1:])
        address = local.settings.redis_url.removeprefix("redis://")
        yield {user: f"redis://{user}:{passwords[f'UPRES_{user.upper()}_PASSWORD']}@{address}" for user in USERS}
        for user in USERS:
            admin.execute_command("ACL", "DELUSER", user)


def test_every_part_does_its_work(local: Local, urls: dict[str, str], tmp_path: Path, png: bytes) -> None:
    changed = {"UPRES_REDIS_URL": urls["function"], "UPRES_ACCESS": "keys"}
    with Redis.from_url(local.settings.redis_url) as admin:
        _, text = access.create(admin, "somebody")
    for url in function(local, tmp_path, **changed):
        with worker(local, UPRES_REDIS_URL=urls["worker"]), Client(url, text) as client:
            assert client.upscale(png, 2).result.width == 128
            again = client.submit(png, 4)
            assert client.cancel(again.job_id).status in ("cancelled", "succeeded")
            assert requests.get(f"{url}/readyz", timeout=20).ok
            metrics = requests.get(f"{url}/metrics", headers={"Authorization": f"Bearer {text}"}, timeout=20)
            assert "upres_worker_slots" in metrics.text


def test_a_gateway_serves_streams_and_nothing_else(
    local: Local, urls: dict[str, str], tmp_path: Path, redis: Redis
) -> None:
    job_id = secrets.token_hex(16)
    events.append(redis, queued(job_id))
    for url in function(local, tmp_path, UPRES_REDIS_URL=urls["gateway"]):
        with requests.get(f"{url}/v1/jobs/{job_id}/events", stream=True, timeout=20) as stream:
            lines = stream.iter_lines()
            assert b"queued" in next(line for line in lines if line.startswith(b"data"))
            events.append(redis, Cancelled(job_id=job_id))
            assert b"cancelled" in next(line for line in lines if line.startswith(b"data"))
        answer = requests.post(f"{url}/v1/jobs", json={"image_url": "https://example.org/a.png"}, timeout=20)
        assert answer.status_code == 503


FORBIDDEN = {
    "function": ["KEYS *", "FLUSHALL", "CONFIG GET *", "GET other", "BLMOVE rq:queue:upres upres:popped 1 LEFT RIGHT",
                 "SUBSCRIBE other", "CLIENT LIST", "SCRIPT FLUSH", "DEBUG SLEEP 0", "ACL LIST", "SHUTDOWN", "SAVE"],
    "worker": ["KEYS *", "FLUSHALL", "CONFIG GET *", "GET other", "SUBSCRIBE upres:job:x", "ACL LIST", "SHUTDOWN",
               "MONITOR", "CLIENT KILL ID 1", "XRANGE other - +"],
    "gateway": ["SET upres:job:x:run 1", "XADD upres:job:x:events * a b", "PUBLISH upres:job:x y", "EVAL 'return 1' 0",
                "LPUSH rq:queue:upres x", "HSET upres:keys a b", "HGETALL upres:keys", "GET upres:tile:x", "KEYS *",
                "DEL upres:job:x:events", "HGETALL rq:job:x"],
    "operator": ["FLUSHALL", "CONFIG GET *", "SHUTDOWN", "KEYS *", "MONITOR", "GET other"],
}  # fmt: skip


@pytest.mark.parametrize("user", USERS)
def test_nobody_does_more(urls: dict[str, str], user: str) -> None:
    with Redis.from_url(urls[user]) as connection:
        assert connection.ping()
        for command in FORBIDDEN[user]:
            with pytest.raises(NoPermissionError):
                connection.execute_command(*command.replace("'return 1'", "return_1").split())


def test_a_script_may_do_no_more_than_whoever_runs_it(urls: dict[str, str]) -> None:
    with Redis.from_url(urls["worker"]) as connection:
        for command in ("'FLUSHALL'", "'GET', 'other'", "'KEYS', '*'"):
            with pytest.raises(ResponseError, match="can't"):
                connection.eval(f"return redis.call({command})", 0)


def test_operators_see_and_replay(local: Local, urls: dict[str, str], redis: Redis) -> None:
    job_id = submit(redis)
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
    events.append(redis, Cancelled(job_id=job_id))
    assert redis.zscore(keys.DEADLINES, job_id) is None
