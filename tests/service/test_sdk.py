"""The SDK's synchronous and asynchronous client, with real servers."""

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

from tests.support.events import RESULT
from tests.support.images import opened
from tests.support.leasing import submit
from tests.support.paths import SAMPLES
from tests.support.servers import body, function, http_server
from upres.client import AsyncClient, Client, JobCancelled, JobFailed, JobTimeout, RequestRefused, ServerUnreachable
from upres.client import protocol as protocol_module
from upres.client.atomic_file import atomic_write
from upres.core import api_keys, events
from upres.core.api import JobAccepted, Problem
from upres.core.schema import Cancelled, Event, Snapshot
from upres.embedded.child import free_port
from upres.embedded.stack import Local


def surface(kind: type) -> dict[str, list[str]]:
    """The public methods of a class: name → parameters."""
    methods = {name: value for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}
    return {name: list(map(str, inspect.signature(value).parameters.values())) for name, value in methods.items()}


def test_sync_and_async_client_have_the_same_methods_and_parameters() -> None:
    assert surface(Client) == surface(AsyncClient)
    assert str(inspect.signature(Client.__init__)) == str(inspect.signature(AsyncClient.__init__))
    assert len(surface(Client)) >= 12


def test_async_client_submits_waits_downloads_cancels_and_raises(local: Local, tmp_path: Path, png: bytes) -> None:
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


def test_one_async_client_enlarges_20_images_concurrently(local: Local, png: bytes, photo: Image.Image) -> None:
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


def test_submit_with_wait_returns_the_result_only_if_it_is_ready_in_time(client: Client, png: bytes) -> None:
    done = client.submit(png, 2, wait=20)
    assert isinstance(done, Snapshot)
    assert done.result
    slow = client.submit(SAMPLES / "chelsea.png", 8, wait=1)
    assert isinstance(slow, JobAccepted)
    client.cancel(slow.job_id)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_wait_raises_job_timeout_when_the_timeout_expires(
    local: Local, isolated_redis: Redis, tmp_path: Path, kind: str
) -> None:
    job_id = submit(isolated_redis)
    url = local.settings.redis_url.removesuffix("/0") + "/1"
    for server in function(local, tmp_path, UPRES_REDIS_URL=url):
        begin = time.monotonic()
        with pytest.raises(JobTimeout), Client(server) as client:
            asyncio.run(_wait(server, job_id)) if kind == "async" else client.wait(job_id, timeout=0.5)
        assert time.monotonic() - begin < 10
        events.append(isolated_redis, Cancelled(job_id=job_id))


async def _wait(server: str, job_id: str) -> None:
    """Wait for a job with the asynchronous client, with a timeout of 0.5 seconds."""
    async with AsyncClient(server) as client:
        await client.wait(job_id, timeout=0.5)


def test_a_download_is_retried_after_connection_errors(
    client: Client, png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upres.client.sdk.time.sleep", lambda seconds: None)
    job_id, tries = client.upscale(png, 2).job_id, iter([1, 2])
    whole_stream = client._stream

    @contextmanager
    def breaking(*arguments: Any) -> Iterator[httpx.Response]:
        """Fail twice with a connection error, then open the real stream."""
        if next(tries, None):
            raise httpx.ReadError("broken off")
        with whole_stream(*arguments) as response:
            yield response

    monkeypatch.setattr(client, "_stream", breaking)
    assert opened(client.save(job_id, tmp_path / "out.png").read_bytes()).size == (128, 96)
    assert next(tries, None) is None


def test_a_download_that_breaks_in_the_middle_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upres.client.sdk.time.sleep", lambda seconds: None)
    file, requests = b"\x89PNG\r\n" * 100_000, []

    def breaking(handler: BaseHTTPRequestHandler) -> None:
        """Send the first half and close the connection; answer the second request completely."""
        requests.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(file)))
        handler.end_headers()
        handler.wfile.write(file[: len(file) // 2] if len(requests) == 1 else file)

    with http_server(breaking, "127.0.0.1") as store, Client("http://127.0.0.1:1") as client:
        client.save(RESULT.model_copy(update={"sr_image_url": f"{store}/image"}), tmp_path / "out.png")
    assert requests == ["/image"] * 2
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [file]


def test_two_uploads_with_one_idempotency_key_give_one_job(
    client: Client, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "INLINE_BYTES", 100)
    jobs = {client.submit(png, 2, idempotency_key=f"order {len(png)} {hash(png)}").job_id for _ in range(2)}
    assert len(jobs) == 1


def test_client_sleeps_for_retry_after_between_two_http_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("upres.client.sdk.time.sleep", slept.append)
    heard = iter([(429, {"Retry-After": "3"}), (200, {})])

    problem = Problem(type="t", title="t", status=429, detail="Later.", code="rate_limited", retryable=True)
    later = problem.model_dump_json().encode()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        status, headers = next(heard)
        body(later if status == 429 else SNAPSHOT, status, headers)(handler)

    with http_server(reply) as url, Client(url) as client:
        assert client.status("0" * 32).status == "queued"
    assert slept == [3]


SNAPSHOT = Snapshot(
    job_id="0" * 32, status="queued", upscale_factor=4, model="m", model_version="1", output_format="auto",
    submitted_at="2026-01-01T00:00:00Z", updated_at="2026-01-01T00:00:00Z", deadline="2026-01-01T00:00:00Z",
).model_dump_json().encode()  # fmt: skip


def test_requests_to_the_store_have_no_authorization_header(
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


def test_atomic_write_keeps_the_old_file_if_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"before")

    def half() -> Generator[None, None, None]:
        """Write a part of the file; the test then raises an error at the `yield`."""
        with atomic_write(target) as file:
            file.write(b"half")
            yield

    writing = half()
    next(writing)
    with pytest.raises(RuntimeError):
        writing.throw(RuntimeError("cut off"))
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_server_unreachable_is_raised_if_no_server_listens() -> None:
    async def ask() -> None:
        async with AsyncClient(f"127.0.0.1:{free_port()}", retries=0) as client:
            await client.status("0" * 32)

    with pytest.raises(ServerUnreachable, match="is upres running there"):
        asyncio.run(ask())


def uploads(received: list[Any]) -> Callable[[int, int], None]:
    """A progress callback that appends each (sent bytes, total bytes) to the list."""
    return lambda sent, total: received.append((sent, total))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_upload_reports_its_progress_in_bytes(local: Local, client: Client, png: bytes, kind: str) -> None:
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
