"""Both clients of the SDK: the same surface, real servers, and answers that no server gives on demand."""

import asyncio
import inspect
import io
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from tests.support.images import opened
from tests.support.leasing import submit
from tests.support.paths import SAMPLES
from tests.support.servers import body, function, http_server
from upres.client import AsyncClient, Client, JobCancelled, JobFailed, JobTimeout, RequestRefused, ServerUnreachable
from upres.client import protocol as protocol_module
from upres.client.errors import StoreUnreachable
from upres.client.protocol import MAX_PAUSE, ApiOperations, Call, Pause
from upres.core import api_keys, events
from upres.core.api import JobAccepted
from upres.core.schema import Cancelled, Event, Snapshot
from upres.embedded.child import free_port
from upres.embedded.stack import Local


def surface(kind: type) -> dict[str, list[str]]:
    methods = {name: value for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}
    return {name: list(map(str, inspect.signature(value).parameters.values())) for name, value in methods.items()}


def test_both_clients_have_the_same_surface() -> None:
    assert surface(Client) == surface(AsyncClient)
    assert str(inspect.signature(Client.__init__)) == str(inspect.signature(AsyncClient.__init__))
    assert len(surface(Client)) >= 12


def test_the_async_client_does_all_of_it(local: Local, tmp_path: Path, png: bytes) -> None:
    async def use() -> None:
        heard: list[Event] = []
        async with AsyncClient(local.url) as client:
            upscaled = await client.upscale(png, 2, on_event=heard.append)
            assert [heard[0].type, heard[-1].type] == ["queued", "succeeded"]
            assert opened(await upscaled.download()).size == (128, 96)
            saved = await upscaled.save(tmp_path / "out.png", "original")
            assert opened(saved.read_bytes()).size == (128, 96)
            assert [event async for event in client.events(upscaled.job_id)] == heard
            assert (await client.status(upscaled.job_id)).status == "succeeded"
            assert (await client.wait(upscaled.job_id)).width == 128
            assert (await client.estimate(100, 50, 2)).width == 200
            job = await client.submit((SAMPLES / "chelsea.png").read_bytes(), 8)
            assert (await client.cancel(job.job_id)).status == "cancelled"
            with pytest.raises(JobCancelled):
                await client.wait(job.job_id)
            with pytest.raises(JobFailed, match="not an image"):
                await client.upscale(b"no image")
            with pytest.raises(FileNotFoundError):
                await client.submit(tmp_path / "missing.png")
            with pytest.raises(RequestRefused):
                await client.status("0" * 32)

    asyncio.run(use())


def test_many_at_once_need_one_client(local: Local, png: bytes, photo: Image.Image) -> None:
    async def use() -> list[int]:
        files = []
        for number in range(20):
            photo.putpixel((1, 1), (number, 7, 7))
            out = io.BytesIO()
            photo.save(out, "PNG")
            files.append(out.getvalue())
        async with AsyncClient(local.url) as client:
            return [one.result.width for one in await asyncio.gather(*(client.upscale(file, 2) for file in files))]

    assert asyncio.run(use()) == [128] * 20


def test_an_answer_is_waited_for(client: Client, png: bytes) -> None:
    done = client.submit(png, 2, wait=20)
    assert isinstance(done, Snapshot)
    assert done.result
    slow = client.submit(SAMPLES / "chelsea.png", 8, wait=1)
    assert isinstance(slow, JobAccepted)
    client.cancel(slow.job_id)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_patience_ends_and_the_job_goes_on(local: Local, isolated_redis: Redis, tmp_path: Path, kind: str) -> None:
    job_id = submit(isolated_redis)
    url = local.settings.redis_url.removesuffix("/0") + "/1"
    for server in function(local, tmp_path, UPRES_REDIS_URL=url):
        begin = time.monotonic()
        with pytest.raises(JobTimeout), Client(server) as client:
            asyncio.run(_wait(server, job_id)) if kind == "async" else client.wait(job_id, timeout=0.5)
        assert time.monotonic() - begin < 10
        events.append(isolated_redis, Cancelled(job_id=job_id))


async def _wait(server: str, job_id: str) -> None:
    async with AsyncClient(server) as client:
        await client.wait(job_id, timeout=0.5)


def answers(*planned: "httpx.Response | Exception") -> tuple[list[float], Callable[[], httpx.Response]]:
    """Runs one request of a ApiOperations against planned answers: the pauses that it asks for, and its answer."""
    pauses: list[float] = []
    peer = ApiOperations("http://example.org", None, retries=4)

    def run() -> httpx.Response:
        steps = peer._ask(Call("GET", "http://example.org/"))
        plan = iter(planned)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    pauses.append(step.seconds)
                    step = next(steps)
                    continue
                answer = next(plan)
                step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
        except StopIteration as stop:
            found: httpx.Response = stop.value
            return found

    return pauses, run


def answer(status: int, retry_after: str | None = None) -> httpx.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    problem = {"type": "t", "title": "t", "status": status, "detail": "It is so.", "code": "c", "retryable": True}
    request = httpx.Request("GET", "http://example.org/")
    return httpx.Response(status, headers=headers, json=problem if status >= 400 else {}, request=request)


def test_what_may_pass_is_tried_again_as_late_as_the_server_asks() -> None:
    pauses, run = answers(answer(503), httpx.ConnectError("no"), answer(429, "7"), answer(502), answer(200))
    assert run().status_code == 200
    assert pauses[2] == 7
    assert 0.25 <= pauses[0] <= 0.5 < pauses[1] * 2 <= 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422, 500])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    pauses, run = answers(answer(status, "3"))
    with pytest.raises(RequestRefused, match="It is so"):
        run()
    assert pauses == []


def test_who_should_come_back_tomorrow_is_told_so() -> None:
    pauses, run = answers(answer(429, str(int(MAX_PAUSE) + 1)))
    with pytest.raises(RequestRefused):
        run()
    assert pauses == []


def test_patience_with_an_outage_is_bounded() -> None:
    pauses, run = answers(*[httpx.ReadTimeout("slow")] * 5)
    with pytest.raises(ServerUnreachable):
        run()
    assert len(pauses) == 4
    assert sum(pauses) < 10


def test_what_stands_between_refuses_one_image_and_the_store_is_another_matter() -> None:
    request = httpx.Request("POST", "http://example.org/v1/jobs?token=x")
    html = httpx.Response(413, html="<h1>too large</h1>", request=request)
    received = protocol_module.refused(Call("POST", "http://example.org/"), html)
    assert isinstance(received, RequestRefused)
    assert not received.retryable
    assert "token" not in str(received)
    gone = protocol_module.refused(Call("GET", "http://store/", to_store=True), httpx.Response(404, request=request))
    assert isinstance(gone, StoreUnreachable)


def test_a_download_that_breaks_off_is_begun_again(
    client: Client, png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upres.client.sdk.time.sleep", lambda seconds: None)
    job_id, tries = client.upscale(png, 2).job_id, iter([1, 2])
    whole_stream = client._stream

    @contextmanager
    def breaking(*arguments: Any) -> Iterator[httpx.Response]:
        if next(tries, None):
            raise httpx.ReadError("broken off")
        with whole_stream(*arguments) as response:
            yield response

    monkeypatch.setattr(client, "_stream", breaking)
    assert opened(client.save(job_id, tmp_path / "out.png").read_bytes()).size == (128, 96)
    assert next(tries, None) is None


def test_an_uploaded_image_may_be_submitted_again_with_its_key(
    client: Client, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "INLINE_BYTES", 100)
    jobs = {client.submit(png, 2, idempotency_key=f"order {len(png)} {hash(png)}").job_id for _ in range(2)}
    assert len(jobs) == 1


def test_retry_after_is_respected_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("upres.client.sdk.time.sleep", slept.append)
    heard = iter([(429, {"Retry-After": "3"}), (200, {})])

    def reply(handler: BaseHTTPRequestHandler) -> None:
        status, headers = next(heard)
        body(answer(status).content if status == 429 else SNAPSHOT, status, headers)(handler)

    with http_server(reply) as url, Client(url) as client:
        assert client.status("0" * 32).status == "queued"
    assert slept == [3]


SNAPSHOT = Snapshot(
    job_id="0" * 32, status="queued", upscale_factor=4, model="m", model_version="1", output_format="auto",
    submitted_at="2026-01-01T00:00:00Z", updated_at="2026-01-01T00:00:00Z", deadline="2026-01-01T00:00:00Z",
).model_dump_json().encode()  # fmt: skip


def test_the_store_hears_nothing_of_the_api_key(
    local: Local, redis: Redis, tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "INLINE_BYTES", 100)
    asked: list[httpx.Request] = []
    _, text = api_keys.create(redis, "somebody")
    for url in function(local, tmp_path, UPRES_ACCESS="keys"):
        with Client(url, text) as client:
            client._http.event_hooks = {"request": [asked.append]}
            client.upscale(png, 2).save(tmp_path / "out.png")
    stores = [one for one in asked if not str(one.url).startswith(url)]
    assert {one.method for one in stores} == {"PUT", "GET"}
    assert all("Authorization" not in one.headers for one in stores)
    assert all("Authorization" in one.headers for one in asked if one not in stores)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"before")

    def half() -> Generator[None, None, None]:
        with protocol_module.atomic_write(target) as file:
            file.write(b"half")
            yield

    writing = half()
    next(writing)
    with pytest.raises(RuntimeError):
        writing.throw(RuntimeError("cut off"))
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_nobody_there_is_said_at_once() -> None:
    async def ask() -> None:
        async with AsyncClient(f"127.0.0.1:{free_port()}", retries=0) as client:
            await client.status("0" * 32)

    with pytest.raises(ServerUnreachable, match="is upres running there"):
        asyncio.run(ask())


def uploads(received: list[Any]) -> Callable[[int, int], None]:
    return lambda sent, total: received.append((sent, total))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_uploads_tell_how_far_they_are(local: Local, client: Client, png: bytes, kind: str) -> None:
    async def upload() -> str:
        async with AsyncClient(local.url) as other:
            return await other.upload(padded, uploads(received))

    received: list[tuple[int, int]] = []
    padded = png + bytes(200_000)
    key = asyncio.run(upload()) if kind == "async" else client.upload(padded, uploads(received))
    assert key.startswith("uploads/")
    assert received[-1] == (len(padded), len(padded))
    assert len(received) >= 3
    assert [sent for sent, _ in received] == sorted(sent for sent, _ in received)
