"""Redis loses the end of a job's events in a failover: the clients still tell how the job ended."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.chaos.proxy import FaultProxy
from tests.support.events import RESULT, queued
from upres.client import AsyncClient, Client
from upres.client.batch import Callbacks
from upres.client.remote import Remote
from upres.core import keys
from upres.core.schema import Event, Succeeded
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@pytest.fixture
def proxy(local: Local) -> Iterator[FaultProxy]:
    """Stands before the function."""
    with FaultProxy(int(local.url.rpartition(":")[2])) as running:
        yield running


def failover(redis: Redis, proxy: FaultProxy) -> Callable[[Event], None]:
    """What happens after the first event: another Redis whose clock is behind has the job, and connections break."""

    def lose(event: Event) -> None:
        stream = keys.events(event.job_id)
        redis.delete(stream)
        others: list[Event] = [queued(event.job_id), Succeeded(job_id=event.job_id, result=RESULT)]
        for number, one in enumerate(others, 1):
            redis.xadd(stream, {"type": one.type, "data": one.model_dump_json()}, id=f"{number}-0")
        proxy.reset()

    return lose


def test_the_client_reads_the_state_when_the_last_event_is_lost(redis: Redis, proxy: FaultProxy, png: bytes) -> None:
    with Client(f"http://127.0.0.1:{proxy.port}") as client:
        assert client.upscale(png, 2, on_event=failover(redis, proxy)).result == RESULT


def test_the_async_client_reads_it_too(redis: Redis, proxy: FaultProxy, png: bytes) -> None:
    async def upscale() -> None:
        async with AsyncClient(f"http://127.0.0.1:{proxy.port}") as client:
            assert (await client.upscale(png, 2, on_event=failover(redis, proxy))).result == RESULT

    asyncio.run(upscale())


def test_the_command_reads_it_too(redis: Redis, proxy: FaultProxy, png: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png)
    with Client(f"http://127.0.0.1:{proxy.port}") as client:
        lost = Callbacks(on_event=failover(redis, proxy), on_bytes=lambda sent, total: None)
        assert Remote(client, client, 2, {}).enlarge(str(tmp_path / "a.png"), lost).result == RESULT
