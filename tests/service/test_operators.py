"""Tests of the command `upres jobs`: overview, dead letters and error messages."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.leasing import ended, run_out, submit, taken, types, waiting
from tests.support.workers import worker
from upres.client import Client
from upres.core import events, keys, leases
from upres.core.errors import WorkerLost
from upres.core.schema import Cancelled, Failed
from upres.embedded.child import free_port
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


def upres(local: Local, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).parent / "upres"), "jobs", *arguments]
    environment = {**os.environ, **local.environment, **changed}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def die(redis: Redis) -> str:
    """Submit a job, let the lease of each of its workers expire, and return its id: it is a dead letter now."""
    job_id = submit(redis)
    leases.recover(redis)  # the first recovery after a pause only extends expired leases
    for _ in range(keys.ATTEMPTS):
        while taken(redis).job_id != job_id:
            pass
        run_out(redis, job_id)
        leases.recover(redis)
    return job_id


@pytest.fixture
def letter(redis: Redis) -> Iterator[str]:
    job_id = die(redis)
    yield job_id
    redis.zrem(keys.DEAD, job_id)


def test_purge_cancels_waiting_jobs_by_age_and_by_key(local: Local, redis: Redis) -> None:
    mine, other = submit(redis, owner="k1"), submit(redis)
    assert "no such jobs" in upres(local, "purge", "--older", "1h", "--yes").stdout
    assert "1 jobs cancelled" in upres(local, "purge", "--key", "k1", "--yes").stdout
    assert (types(redis, mine)[-1], types(redis, other)[-1]) == ("cancelled", "queued")
    asked = upres(local, "purge")
    assert (asked.returncode, "Cancel 1 jobs?" in asked.stdout) == (1, True)
    held = taken(redis)
    assert "no such jobs" in upres(local, "purge", "--yes").stdout
    assert "1 jobs cancelled" in upres(local, "purge", "--running", "--yes").stdout
    assert types(redis, held.job_id)[-1] == "cancelled"
    wrong = upres(local, "purge", "--older", "soon")
    assert (wrong.returncode, "such as 90s" in wrong.stderr) == (2, True)


def test_jobs_that_another_program_took_from_the_queue_are_shown_and_put_back(local: Local, redis: Redis) -> None:
    lost, gone = submit(redis), submit(redis)
    redis.delete(keys.WAITING, keys.record(gone))
    assert "nowhere  2" in upres(local).stdout
    redis.delete(keys.AUDITED)
    assert sorted(leases.recover(redis)) == sorted([(lost, "requeued"), (gone, "failed")])
    assert (types(redis, lost), waiting(redis)) == (["queued"], [lost])
    assert ended(redis, gone).code == "job_lost"
    assert "nowhere" not in upres(local).stdout
    events.append(redis, Cancelled(job_id=lost))


def test_the_overview_shows_queue_dead_letters_and_workers(local: Local, redis: Redis, letter: str) -> None:
    waiting = submit(redis)
    empty = upres(local).stdout
    assert "waiting  1" in empty
    assert "workers  0, with 0 slots" in empty
    events.append(redis, Cancelled(job_id=waiting))
    with worker(local, UPRES_SLOTS="3"):
        received = upres(local).stdout
    assert "waiting  0" in received
    assert "dead     1" in received
    assert "workers  1, with 3 slots" in received


def test_dead_letters_are_listed_and_shown_with_their_message_and_events(local: Local, letter: str) -> None:
    assert letter in (listed := upres(local, "dead").stdout)
    assert "worker_lost" in listed
    shown = upres(local, "show", letter).stdout
    message: dict[str, Any] = json.JSONDecoder().raw_decode(shown)[0]
    assert message["job_id"] == letter
    assert message["upscale_factor"] == 4
    assert shown.count("worker_lost") >= 3


def test_terminal_escape_sequences_in_error_messages_are_not_printed(local: Local, redis: Redis) -> None:
    job_id = submit(redis)
    hostile = "\x1b]0;owned\x07\x1b[2J[/nope][bold]"
    events.append(redis, Failed(job_id=job_id, code="c", message=hostile, retryable=False))
    shown = upres(local, "show", job_id)
    assert shown.returncode == 0
    assert "[/nope][bold]" in shown.stdout
    assert not {"\x1b", "\x07"} & set(shown.stdout)


def test_control_characters_in_a_dead_letter_are_not_printed(local: Local, redis: Redis) -> None:
    job_id = submit(redis, image_name="a\u202egpj.exe\x9b2J\x1b[2J\u2066")
    events.append(redis, leases.failure(job_id, WorkerLost("x")), dead=True)
    shown = upres(local, "show", job_id).stdout
    assert "gpj.exe" in shown
    assert not {"\u202e", "\x9b", "\x1b", "\u2066"} & set(shown)
    assert upres(local, "drop", job_id).returncode == 0


def test_a_dead_letter_is_replayed_once_as_a_new_job(local: Local, redis: Redis, letter: str, png: bytes) -> None:
    local.store.put(keys.upload(letter), png)
    done = upres(local, "replay", letter)
    assert done.returncode == 0
    fresh = done.stdout.strip()
    assert fresh != letter
    with worker(local), Client(local.url) as client:
        assert list(client.events(fresh))[-1].type == "succeeded"
    assert letter not in upres(local, "dead").stdout
    assert upres(local, "replay", letter).returncode == 1


def test_all_dead_letters_and_their_records_can_be_dropped(local: Local, redis: Redis) -> None:
    letters = [die(redis) for _ in range(2)]
    assert upres(local, "drop", "--all").returncode == 0
    assert redis.zcard(keys.DEAD) == 0
    assert not any(redis.exists(keys.record(job_id)) for job_id in letters)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["drop"], "Name dead letters, or give --all"),
        (["show", "nowhere"], "There is no job 'nowhere'"),
        (["replay", "nothing"], "There is no dead letter 'nothing'"),
    ],
)
def test_mistakes_are_reported_without_a_traceback(local: Local, arguments: list[str], says: str) -> None:
    done = upres(local, *arguments)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_redis_is_reported_without_a_traceback(local: Local) -> None:
    done = upres(local, UPRES_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert done.returncode == 1
    assert "UPRES_REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr
