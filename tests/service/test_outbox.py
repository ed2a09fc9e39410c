"""Events that follow each other at once are published together: none is lost, changed or late, and fences hold."""

import secrets
import threading
from unittest.mock import patch

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.events import RESULT, started
from tests.support.leasing import run_out, submit, taken, types
from tests.support.waiting import wait_until
from upres.core import events, leases
from upres.core.schema import Cancelled, Event, Progress, Succeeded
from upres.core.script import call
from upres.worker import outbox
from upres.worker.outbox import Outbox, OutboxThread


def fetching(job_id: str, percent: float = 0) -> Progress:
    return Progress(job_id=job_id, stage="fetch", percent=percent)


def opened(redis: Redis, running: bool = False) -> tuple[str, Outbox]:
    """A job that was taken, and its outbox; what is due is published when the thread runs."""
    submit(redis)
    lease, thread = taken(redis), OutboxThread()
    if running:
        thread.start()
    return lease.job_id, Outbox(redis, lease, thread)


def test_events_within_a_moment_are_published_with_the_end_of_the_job(isolated_redis: Redis) -> None:
    job_id, sent = opened(isolated_redis)
    assert sent.add(started(job_id))
    with patch.object(outbox, "HOLD_SECONDS", 60):
        held: list[Event] = [fetching(job_id, percent) for percent in range(3)]
        for event in held:
            assert sent.add(event)
        assert types(isolated_redis, job_id) == ["queued", "started"]
        assert sent.publish(Succeeded(job_id=job_id, result=RESULT))
    stored = [event for _, event in events.read(isolated_redis, job_id)]
    assert stored[2:-1] == held
    assert types(isolated_redis, job_id)[-1] == "succeeded"
    assert not sent.publish(fetching(job_id))


def test_an_event_after_which_nothing_comes_is_published_soon(isolated_redis: Redis) -> None:
    job_id, sent = opened(isolated_redis, running=True)
    sent.add(started(job_id))
    sent.add(fetching(job_id))
    wait_until(lambda: types(isolated_redis, job_id) == ["queued", "started", "progress"], 5)


def test_a_worker_learns_at_its_next_event_that_one_was_refused(isolated_redis: Redis) -> None:
    job_id, sent = opened(isolated_redis)
    assert sent.add(started(job_id))
    assert sent.add(fetching(job_id))
    events.append(isolated_redis, Cancelled(job_id=job_id))
    sent.publish_due()
    assert not sent.add(fetching(job_id))
    assert not sent.publish(Succeeded(job_id=job_id, result=RESULT))
    assert types(isolated_redis, job_id) == ["queued", "started", "cancelled"]


def test_a_worker_that_was_thought_dead_can_publish_none_of_several_events(isolated_redis: Redis) -> None:
    job_id, sent = opened(isolated_redis)
    sent.add(started(job_id))
    sent.add(fetching(job_id))
    run_out(isolated_redis, job_id)
    leases.recover(isolated_redis)
    assert not sent.publish(Succeeded(job_id=job_id, result=RESULT))
    assert types(isolated_redis, job_id) == ["queued", "started", "requeued"]


def test_an_error_of_redis_reaches_the_thread_of_the_job(isolated_redis: Redis) -> None:
    job_id, sent = opened(isolated_redis)
    sent.add(started(job_id))
    sent.add(fetching(job_id))
    with patch.object(events, "append_all", side_effect=RedisConnectionError("gone")):
        sent.publish_due()
    with pytest.raises(RedisConnectionError, match="gone"):
        sent.add(fetching(job_id))
    with pytest.raises(RedisConnectionError, match="gone"):
        sent.publish()


def test_several_events_whose_answer_was_lost_are_written_once(isolated_redis: Redis) -> None:
    submit(isolated_redis)
    lease, once = taken(isolated_redis), secrets.token_hex(8)
    several = [fetching(lease.job_id, percent) for percent in (0, 1)]
    parts = [part for event in several for part in (event.type, event.model_dump_json())]
    ids = [call(isolated_redis, "append_all", lease.job_id, once, lease.holder, *parts) for _ in range(2)]
    assert ids[0] == ids[1] is not None
    assert types(isolated_redis, lease.job_id) == ["queued", "progress", "progress"]


def test_an_end_among_several_events_whose_answer_was_lost_is_known(isolated_redis: Redis) -> None:
    submit(isolated_redis)
    lease, once = taken(isolated_redis), secrets.token_hex(8)
    several: list[Event] = [fetching(lease.job_id), Succeeded(job_id=lease.job_id, result=RESULT)]
    parts = [part for event in several for part in (event.type, event.model_dump_json())]
    ids = [call(isolated_redis, "append_all", lease.job_id, once, lease.holder, *parts) for _ in range(2)]
    assert ids[0] == ids[1] is not None
    assert types(isolated_redis, lease.job_id) == ["queued", "progress", "succeeded"]


def test_threads_that_publish_at_once_keep_the_order(isolated_redis: Redis) -> None:
    job_id, sent = opened(isolated_redis, running=True)

    def publish_often() -> None:
        for _ in range(50):
            sent.publish_due()

    with patch.object(outbox, "HOLD_SECONDS", 0.001):
        publishing = threading.Thread(target=publish_often)
        publishing.start()
        for percent in range(100):
            assert sent.add(fetching(job_id, percent))
        publishing.join()
        assert sent.publish()
    stored = [event for _, event in events.read(isolated_redis, job_id) if isinstance(event, Progress)]
    assert [event.percent for event in stored] == list(range(100))
