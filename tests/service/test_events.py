"""Tests of events in a real Redis: their order, their publication, their JSON, and the single terminal event."""

import json
import secrets
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from tests.support.events import RESULT, queued, started
from upres.core import events, keys
from upres.core.schema import (
    EVENT,
    Cancelled,
    Event,
    Failed,
    Progress,
    Queued,
    Started,
    Succeeded,
)  # fmt: skip


def ends(job_id: str) -> list[Event]:
    failed = Failed(job_id=job_id, code="c", message="m", retryable=True)
    return [Succeeded(job_id=job_id, result=RESULT), failed, Cancelled(job_id=job_id)]


@pytest.fixture
def job_id(redis: Redis) -> Iterator[str]:
    job_id = secrets.token_hex(16)
    yield job_id
    redis.delete(keys.events(job_id))


def test_events_are_read_in_order_and_after_any_id(redis: Redis, job_id: str) -> None:
    received: list[Event] = [queued(job_id), started(job_id)]
    received += [Progress(job_id=job_id, stage="upscale", tiles_done=n, tiles_total=5, percent=n) for n in range(5)]
    ids = [events.append(redis, event) for event in received]
    assert events.read(redis, job_id) == list(zip(ids, received, strict=True))
    for index, event_id in enumerate(ids):
        assert event_id is not None
        assert [event for _, event in events.read(redis, job_id, event_id)] == received[index + 1 :]


@pytest.mark.parametrize("end", range(3))
def test_no_event_is_appended_after_a_terminal_event(redis: Redis, job_id: str, end: int) -> None:
    events.append(redis, queued(job_id))
    assert events.append(redis, ends(job_id)[end])
    for late in [started(job_id), *ends(job_id)]:
        assert events.append(redis, late) is None
    assert len(events.read(redis, job_id)) == 2


def test_the_channel_publishes_the_same_json_as_the_stream(redis: Redis, job_id: str) -> None:
    pubsub = cast(Any, redis).pubsub()
    pubsub.subscribe(keys.channel(job_id))
    assert pubsub.get_message(timeout=5)["type"] == "subscribe"
    events.append(redis, queued(job_id))
    message = pubsub.get_message(timeout=5)
    pubsub.close()
    [(_, fields)] = cast(Any, redis.xrange(keys.events(job_id)))
    assert message["data"] == fields[b"data"]
    assert json.loads(message["data"])["type"] == "queued"


def test_an_event_stream_expires(redis: Redis, job_id: str) -> None:
    events.append(redis, queued(job_id))
    assert 0 < redis.ttl(keys.events(job_id)) <= keys.EVENTS_SECONDS


def test_an_event_in_a_pipeline_is_stored_when_the_pipeline_runs(redis: Redis, job_id: str) -> None:
    with redis.pipeline(transaction=True) as pipeline:
        assert events.append(pipeline, queued(job_id)) is None
        assert not redis.exists(keys.events(job_id))
        pipeline.execute()
    assert len(events.read(redis, job_id)) == 1


def test_folding_events_gives_the_state_of_the_job() -> None:
    job_id = "0" * 32
    received: list[Event] = [queued(job_id)]
    state = events.fold(received)
    assert (state.status, state.position) == ("queued", 3)
    received.append(started(job_id))
    state = events.fold(received)
    assert (state.status, state.position, state.device, state.attempt) == ("running", None, "d", 1)
    received.append(Progress(job_id=job_id, stage="upscale", tiles_done=1, tiles_total=4, percent=25, eta_seconds=3))
    state = events.fold(received)
    assert (state.stage, state.tiles_done, state.percent, state.eta_seconds) == ("upscale", 1, 25, 3)
    received.append(started(job_id, attempt=2))
    state = events.fold(received)
    assert (state.stage, state.tiles_done, state.percent, state.attempt) == (None, 0, 0, 2)
    succeeded, failed, cancelled = (events.fold([*received, end]) for end in ends(job_id))
    assert (succeeded.status, succeeded.percent, succeeded.result) == ("succeeded", 100, RESULT)
    assert failed.status == "failed"
    assert failed.failure is not None
    assert failed.failure.code == "c"
    assert (cancelled.status, cancelled.stage) == ("cancelled", None)


@pytest.mark.parametrize("received", [[], [started("0" * 32)]])
def test_folding_events_without_a_queued_event_is_refused(received: list[Event]) -> None:
    with pytest.raises(ValueError, match=r"queued|unpack"):
        events.fold(received)


texts = st.text(max_size=30)
counts = st.integers(0, 10**6)
seconds = st.floats(0, 1e6)
progress = st.builds(
    Progress,
    job_id=texts,
    stage=st.sampled_from(["fetch", "decode", "upscale", "encode", "store"]),
    tiles_done=counts,
    tiles_total=counts,
    percent=st.floats(0, 100),
    eta_seconds=st.none() | seconds,
)
any_event = st.one_of(
    st.builds(
        Queued, job_id=texts, upscale_factor=st.integers(2, 8), model=texts, model_version=texts, output_format=texts,
        position=counts,
    ),
    st.builds(
        Started, job_id=texts, worker=texts, device=texts, model=texts, model_version=texts, model_digest=texts,
        attempt=st.integers(1, 9), waited_seconds=seconds,
    ),
    progress,
    st.builds(Failed, job_id=texts, code=texts, message=texts, retryable=st.booleans()),
    st.builds(Cancelled, job_id=texts),
    st.builds(Succeeded, job_id=texts, result=st.just(RESULT)),
)  # fmt: skip


@given(any_event)
def test_every_event_is_the_same_after_json_encoding_and_decoding(event: Event) -> None:
    assert EVENT.validate_json(event.model_dump_json(exclude_none=True)) == event
