"""One client's requests have a few threads of the function at a time."""

import asyncio
import base64
import threading
from types import SimpleNamespace

import httpx
import pytest
from starlette.requests import Request

from upres.core.api import JobAccepted
from upres.core.errors import UnknownModel
from upres.core.settings import Settings
from upres.function import app as function
from upres.function import create_job
from upres.function.access import Caller
from upres.function.base64_file import Base64File
from upres.function.clients import sender
from upres.function.slow_parts import LARGE_BODY
from upres.function.threads import AT_ONCE, Pool

BEARER = {"Authorization": "Bearer upres_1"}
MANY = 60
"""More requests than there are threads."""


def test_one_sender_has_some_threads_and_others_do_not_wait_for_it() -> None:
    pool, release, begun = Pool(), threading.Event(), list[str]()

    def work(name: str) -> None:
        begun.append(name)
        assert release.wait(10)

    async def crowd() -> None:
        running = [asyncio.create_task(pool.run("one", work, "one")) for _ in range(MANY)]
        while len(begun) < AT_ONCE:
            await asyncio.sleep(0)
        assert await asyncio.wait_for(pool.run("other", lambda: "done"), 10) == "done"
        assert await asyncio.wait_for(pool.run(None, lambda: "done"), 10) == "done"
        assert len(begun) == AT_ONCE
        release.set()
        await asyncio.gather(*running)

    asyncio.run(crowd())
    assert len(begun) == MANY
    assert not pool._turns._turns  # nothing is kept of senders that have no requests


def test_a_waiting_request_that_is_cancelled_or_fails_gives_its_turn_to_the_next() -> None:
    pool, release = Pool(), threading.Event()

    async def crowd() -> None:
        running = [asyncio.create_task(pool.run("one", release.wait, 10)) for _ in range(AT_ONCE)]
        waiting = asyncio.create_task(pool.run("one", lambda: "never"))
        failing = asyncio.create_task(pool.run("one", lambda: 1 // 0))
        last = asyncio.create_task(pool.run("one", lambda: "done"))
        await asyncio.sleep(0)
        waiting.cancel()
        release.set()
        await asyncio.gather(*running)
        with pytest.raises(ZeroDivisionError):
            await failing
        assert await last == "done"
        assert waiting.cancelled()

    asyncio.run(crowd())


def named(access: str, address: str = "192.0.2.1", **headers: str) -> str | None:
    services = SimpleNamespace(settings=SimpleNamespace(access=access))
    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    app = SimpleNamespace(state=SimpleNamespace(services=services))
    return sender(Request({"type": "http", "app": app, "headers": lines, "client": (address, 1)}))


def test_a_sender_cannot_have_several_names() -> None:
    spellings = ("Bearer upres_1", "bearer upres_1", "BEARER   upres_1 ")
    assert {named("keys", Authorization=one) for one in spellings} == {"upres_1"}
    assert named("keys", "192.0.2.1", Authorization="Basic upres_1") == "192.0.2.1"
    assert named("keys", "2001:db8::1") == named("keys", "2001:db8::ffff:1") != named("keys", "2001:db8:0:1::1")
    assert named("open") is None, "behind a proxy all clients may have one address"


@pytest.mark.parametrize(("size", "most"), [(LARGE_BODY + 9, 1), (LARGE_BODY, AT_ONCE)])
def test_one_large_body_of_a_client_is_in_work_at_a_time(monkeypatch: pytest.MonkeyPatch, size: int, most: int) -> None:
    running, counts, all_run = 0, list[int](), asyncio.Event()

    async def submitted(request: Request, document: bytes, image: Base64File, who: Caller) -> JobAccepted:
        nonlocal running
        running += 1
        counts.append(running)
        if running == most:
            all_run.set()
        await all_run.wait()
        await asyncio.sleep(0)
        running -= 1
        raise UnknownModel("no")

    async def requests() -> None:
        body = {"image_base64": base64.b64encode(bytes(size)).decode()}
        app = function.create_app(Settings(access="keys"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            sent = [client.post("/v1/jobs", json=body, headers=BEARER) for _ in range(AT_ONCE)]
            assert {one.status_code for one in await asyncio.gather(*sent)} == {422}

    monkeypatch.setattr(create_job, "caller", lambda *given: Caller())
    monkeypatch.setattr(create_job, "_submitted", submitted)
    asyncio.run(asyncio.wait_for(requests(), 20))
    assert max(counts) == most
