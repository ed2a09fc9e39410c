"""Follow the events of a job over server-sent events (SSE): from the start, late, again, and without new events."""

import asyncio
import json
import threading

import pytest
from redis import Redis

from tests.chaos.proxy import FaultProxy
from tests.support.events import started
from tests.support.streams import follow, frames
from tests.support.without_worker import DATABASE
from upres.client import sse
from upres.core import events, keys
from upres.core.queue import connect_async
from upres.core.schema import Cancelled, Event, Progress
from upres.embedded.stack import Local
from upres.function import stream

pytestmark = pytest.mark.without_worker
Frames = list[sse.ServerSentEvent]


def tell(redis: Redis, *received: Event) -> None:
    """Append the events to the stream of their job."""
    for event in received:
        assert events.append(redis, event)


def types(received: Frames) -> list[str]:
    """The event types of the received frames."""
    return [json.loads(frame.data)["type"] for frame in received]


def test_follower_gets_past_and_new_events_until_the_terminal_event(local: Local, redis: Redis, job_id: str) -> None:
    with follow(local, job_id) as response:
        live = frames(response)
        assert types([next(live)]) == ["queued"]
        for n in range(20):
            tell(redis, Progress(job_id=job_id, stage="upscale", tiles_done=n, tiles_total=20, percent=n))
            assert json.loads(next(live).data)["tiles_done"] == n
        tell(redis, Cancelled(job_id=job_id))
        assert types(list(live)) == ["cancelled"]  # after the terminal event, the stream closes


def test_finished_job_can_be_followed_again_from_any_event_id(local: Local, redis: Redis, job_id: str) -> None:
    received: list[Event] = [started(job_id), *(Progress(job_id=job_id, stage="fetch", percent=n) for n in range(5))]
    tell(redis, *received, Cancelled(job_id=job_id))
    everything = list(frames(follow(local, job_id)))
    assert types(everything) == ["queued", "started", *["progress"] * 5, "cancelled"]
    for index, frame in enumerate(everything[:-1]):
        assert list(frames(follow(local, job_id, last=frame.id))) == everything[index + 1 :]
        assert list(frames(follow(local, job_id, query=f"?last_event_id={frame.id}"))) == everything[index + 1 :]


def test_following_after_the_terminal_event_returns_status_204(local: Local, redis: Redis, job_id: str) -> None:
    tell(redis, Cancelled(job_id=job_id))
    last = list(frames(follow(local, job_id)))[-1].id
    assert follow(local, job_id, last=last).status_code == 204  # after 204, an EventSource does not reconnect
    assert follow(local, job_id, last="9999999999999-0").status_code == 204


@pytest.mark.parametrize("last", ["x", "1-2-3", "1", "-1-0", "9" * 30 + "-0"])
def test_malformed_last_event_id_returns_status_400(local: Local, job_id: str, last: str) -> None:
    response = follow(local, job_id, last=last)
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_event_id"


@pytest.mark.parametrize("ended", [True, False])
def test_follower_with_future_event_id_stops_when_job_ends_or_expires(
    local: Local, redis: Redis, job_id: str, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last event id is in the future. The follower gets only heartbeats, and stops when no event can come."""
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)

    async def watch() -> list[str]:
        hub = stream.Hub(local.settings)
        received = []
        async for frame in hub.follow(job_id, "9999999999999-0"):
            received.append(frame)
            if len(received) == 1:
                events.append(redis, Cancelled(job_id=job_id)) if ended else redis.delete(keys.events(job_id))
        await hub.close()
        return received

    assert set(asyncio.run(asyncio.wait_for(watch(), 20))) == {": still here\n\n"}


def test_many_followers_get_the_same_events_over_one_redis_subscription(
    local: Local, redis: Redis, job_id: str
) -> None:
    received: list[Frames] = []
    ready = threading.Barrier(11)

    def watch() -> None:
        with follow(local, job_id) as response:
            live = frames(response)
            first = next(live)
            ready.wait(20)
            received.append([first, *live])

    watchers = [threading.Thread(target=watch) for _ in range(10)]
    for watcher in watchers:
        watcher.start()
    ready.wait(20)
    tell(redis, *(Progress(job_id=job_id, stage="store", percent=n) for n in range(50)), Cancelled(job_id=job_id))
    for watcher in watchers:
        watcher.join(20)
    assert len(received) == 10
    assert all(one == received[0] for one in received)
    assert len(received[0]) == 52
    assert (
        len([one for one in redis.client_list(_type="pubsub") if one["db"] == str(DATABASE)]) == 1
    )  # all followers share one subscription to Redis


def test_stream_without_new_events_sends_heartbeats(local: Local, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)

    async def first_frames() -> list[str]:
        hub = stream.Hub(local.settings)
        following = hub.follow(job_id, events.START)
        received = [await anext(following) for _ in range(3)]
        await following.aclose()
        await hub.close()
        return received

    first, *rest = asyncio.run(first_frames())
    assert first.startswith("id: ")
    assert all(frame.startswith(":") and frame.endswith("\n\n") for frame in rest)


def test_event_without_a_notification_arrives_with_the_next_heartbeat(
    local: Local, redis: Redis, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is in the stream of the job, but the Redis message that announces it was never published."""
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    silent = Cancelled(job_id=job_id).model_dump_json()

    async def watch() -> list[str]:
        hub = stream.Hub(local.settings)
        received = []
        async for frame in hub.follow(job_id, events.START):
            received.append(frame)
            if len(received) == 1:
                redis.xadd(keys.events(job_id), {"type": "cancelled", "data": silent})
        await hub.close()
        return received

    assert '"cancelled"' in asyncio.run(asyncio.wait_for(watch(), 20))[-1]


def test_a_subscription_that_has_died_silently_is_renewed(
    local: Local, redis: Redis, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall has forgotten the connection: nothing comes, and nothing says so (celery/kombu#2590)."""
    monkeypatch.setattr(stream, "QUIET_SECONDS", 0.3)

    async def watch(proxy: FaultProxy) -> list[str]:
        hub, received = stream.Hub(local.settings), []
        address = f"redis://127.0.0.1:{proxy.port}/{DATABASE}"
        behind = local.settings.model_copy(update={"redis_url": address})
        monkeypatch.setattr(hub, "_subscriber", connect_async(behind, 1, seconds=None))
        async for frame in hub.follow(job_id, events.START):
            received.append(frame)
            if len(received) == 1:
                proxy.forget()
                events.append(redis, Cancelled(job_id=job_id))
        await hub.close()
        return received

    with FaultProxy(local.redis_port) as proxy:
        received = asyncio.run(asyncio.wait_for(watch(proxy), stream.HEARTBEAT_SECONDS - 1))
    assert '"cancelled"' in received[-1]


def test_sse_decoder_follows_the_specification() -> None:
    lines = [
        ": comment", "retry: 10", "id: 1", "data: a", "", "data:b", "data: c", "", "event: x", "", "id: 2", "data:  d",
        "", "data: cut off",
    ]  # fmt: skip
    expected = [("1", "a"), ("1", "b\nc"), ("2", " d")]
    for end in ("\n", "\r\n", "\r"):
        stream = end.join(lines).encode()
        assert list(sse.decode([stream])) == expected
        assert list(sse.decode(stream[index : index + 1] for index in range(len(stream)))) == expected


def test_sse_decoder_divides_lines_at_line_ends_only() -> None:
    text = "a\x85b\u2028c\u2029d\x0b\x0c\x1ce"
    assert list(sse.decode([f"id: 1\ndata: {text}\n\n".encode()])) == [("1", text)]


def test_follower_gets_deadline_exceeded_even_without_a_worker(
    local: Local, redis: Redis, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    redis.zadd(keys.DEADLINES, {job_id: 1})

    async def watch() -> list[str]:
        hub = stream.Hub(local.settings)
        received = [text async for text in hub.follow(job_id, events.START) if not text.startswith(":")]
        await hub.close()
        return received

    assert "deadline_exceeded" in asyncio.run(asyncio.wait_for(watch(), 20))[-1]
