"""A refused event stream: the client waits for a place as long as upres says that it has none, and not for a proxy."""

from types import SimpleNamespace

import httpx
import pytest

from upres.client import ServerUnreachable
from upres.client import following as following_module
from upres.client.calls import NO_DEADLINE, Call
from upres.client.following import EventFollower
from upres.client.protocol import MAX_PAUSE
from upres.core.api import Problem

CALL = Call("GET", "http://upres.example/v1/jobs/x/events")
FULL = Problem(type="t", title="t", status=429, detail="Full.", code="too_many_streams", retryable=True)


def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 50 s pass between two looks at the clock: a server that is silent for 60 s is given up."""
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(following_module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))


def pause(following: EventFollower, response: httpx.Response) -> float:
    """The pause after this response to a request for the stream."""
    with pytest.raises(httpx.RemoteProtocolError) as raised:
        following.begin(CALL, response)
    return following.pause(CALL, raised.value)


def refusal(content: str, retry_after: str = "5") -> httpx.Response:
    return httpx.Response(429, headers={"Retry-After": retry_after}, text=content)


def test_the_client_waits_for_a_place_for_an_event_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_clock(monkeypatch)
    following = EventFollower("x", None, NO_DEADLINE)
    assert [pause(following, refusal(FULL.model_dump_json())) for _ in range(3)] == [5, 5, 5]
    assert pause(following, refusal(FULL.model_dump_json(), "86400")) == MAX_PAUSE


def test_the_client_gives_up_when_a_proxy_refuses_the_stream_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_clock(monkeypatch)
    following = EventFollower("x", None, NO_DEADLINE)
    pause(following, refusal("<h1>Too many requests</h1>"))
    with pytest.raises(ServerUnreachable):
        pause(following, refusal("<h1>Too many requests</h1>"))
