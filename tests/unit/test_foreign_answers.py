"""Whatever answers in place of upres or its store: only errors of the client come out, and few requests go in."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.events import RESULT
from tests.support.foreign import ANSWERS, JOB, STRANGERS, Foreign, raw
from upres.client import AsyncClient, Client, ServerUnreachable, StoreUnreachable
from upres.client import following as following_module
from upres.client import protocol as protocol_module
from upres.core.errors import UpresError


@pytest.fixture(scope="module")
def foreign() -> Iterator[Foreign]:
    with Foreign() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (protocol_module, following_module):
        monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.001)
        monkeypatch.setattr(module, "MAX_BACKOFF", 0.01)
    monkeypatch.setattr(following_module, "GONE_SECONDS", 0.05)


def calls(client: Any, folder: Path) -> dict[str, Callable[[], Any]]:
    """Each call of a client, with arguments that upres itself would accept."""
    image = b"\x89PNG\r\n\x1a\n" * 10
    result = RESULT.model_copy(update={"sr_image_url": f"{client.url}/image"})

    async def all_async(stream: Any) -> list[Any]:
        return [one async for one in stream]

    def every(stream: Any) -> Any:
        return all_async(stream) if isinstance(client, AsyncClient) else list(stream)

    return {
        "upscale": lambda: client.upscale(image, 2),
        "submit": lambda: client.submit(image, 2),
        "wait for": lambda: client.submit(image, 2, wait=1),
        "upload": lambda: client.upload(image),
        "estimate": lambda: client.estimate(10, 10),
        "status": lambda: client.status(JOB),
        "cancel": lambda: client.cancel(JOB),
        "events": lambda: every(client.events(JOB)),
        "follow": lambda: every(client.follow(JOB, "1-0")),
        "wait": lambda: client.wait(JOB),
        "check": lambda: client.check(),
        "download": lambda: client.download(JOB),
        "download by link": lambda: client.download(result),
        "save": lambda: client.save(JOB, folder / "saved"),
        "save by link": lambda: client.save(result, folder / "saved"),
    }


def attempt(kind: type[Client] | type[AsyncClient], foreign: Foreign, name: str, folder: Path) -> Exception | None:
    """Make one call; returns the error of the client. Any other exception is raised, and the requests are counted."""
    foreign.requests.clear()

    async def run() -> None:
        async with AsyncClient(foreign.url, retries=2, timeout=2) as client:
            await calls(client, folder)[name]()

    try:
        if kind is AsyncClient:
            asyncio.run(run())
        else:
            with Client(foreign.url, retries=2, timeout=2) as client:
                calls(client, folder)[name]()
    except UpresError as error:
        return error
    finally:
        assert foreign.requests.total() <= 40, foreign.requests
        assert list(folder.iterdir()) in ([], [folder / "saved"])
    return None


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("answer", STRANGERS)
def test_no_call_takes_a_foreign_answer_for_success(
    foreign: Foreign, tmp_path: Path, kind: type[Client] | type[AsyncClient], answer: str
) -> None:
    foreign.answer = STRANGERS[answer]
    for name in calls(Client(foreign.url), tmp_path):
        if (name, answer) == ("follow", "no content"):
            continue  # 204 ends a stream whose last event the caller has seen
        assert isinstance(attempt(kind, foreign, name, tmp_path), UpresError), name
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANSWERS, name=st.sampled_from(sorted(calls(Client(), Path()))))
def test_any_answer_ends_in_a_result_or_an_error_of_the_client(
    foreign: Foreign, tmp_path: Path, answer: bytes, name: str
) -> None:
    foreign.answer = answer
    for kind in (Client, AsyncClient):
        attempt(kind, foreign, name, tmp_path)
        (tmp_path / "saved").unlink(missing_ok=True)


def test_reconnections_wait_longer_and_longer_and_end_after_a_minute(
    foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real pauses, on a clock that the pauses move."""
    monkeypatch.undo()
    foreign.answer = raw(200, Content_Type="text/event-stream")
    foreign.requests.clear()
    now = [time.monotonic()]
    monkeypatch.setattr("upres.client.following.time.monotonic", lambda: now[0])
    monkeypatch.setattr("upres.client.sdk.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with Client(foreign.url) as client, pytest.raises(ServerUnreachable, match="its answers have no events"):
        list(client.events(JOB))
    assert 8 < foreign.requests.total() < 25


def test_an_unknown_event_of_a_newer_server_is_skipped(foreign: Foreign) -> None:
    ended = json.dumps({"type": "cancelled", "job_id": JOB, "at": "2026-01-01T00:00:00Z"})
    stream = f'id: 1-0\ndata: {{"type": "praised", "job_id": "{JOB}"}}\n\nid: 2-0\ndata: {ended}\n\n'
    foreign.answer = raw(200, stream.encode(), Content_Type="text/event-stream")
    with Client(foreign.url) as client:
        assert [event.type for event in client.events(JOB)] == ["cancelled"]


@pytest.mark.parametrize("answer", ["an empty answer", "a login page", "a redirect to a login page"])
def test_a_foreign_answer_of_the_store_is_named_and_nothing_is_saved(
    foreign: Foreign, tmp_path: Path, answer: str
) -> None:
    foreign.answer = STRANGERS[answer]
    error = attempt(Client, foreign, "save by link", tmp_path)
    assert isinstance(error, StoreUnreachable)
    assert "answered" in str(error)
