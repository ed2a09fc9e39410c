"""The Python clients give the API key to their server only: not to its store, nor to where a redirect leads."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.support.foreign import JOB
from tests.support.servers import http_server
from upres.client import AsyncClient, Client
from upres.core.errors import UpresError

KEY = "upres_secret"
IMAGE = b"\x89PNG\r\n\x1a\n" + b"x" * 20
Seen = list[tuple[str, str, str]]
"""Of each request: method, path, and what it says in Authorization."""


@contextmanager
def recorded(status: int, body: bytes = b"", **headers: str) -> Iterator[tuple[str, Seen]]:
    seen: Seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.command, handler.path, handler.headers.get("Authorization", "")))
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    with http_server(answer, "127.0.0.1") as url:
        yield url, seen


def calls(client: Any, folder: Path, job: str) -> dict[str, Callable[[], Any]]:
    return {
        "submit": lambda: client.submit(IMAGE, 2),
        "upload": lambda: client.upload(IMAGE),
        "status": lambda: client.status(job),
        "cancel": lambda: client.cancel(job),
        "wait": lambda: client.wait(job),
        "download": lambda: client.download(job),
        "save": lambda: client.save(job, folder / "saved.png"),
    }


def call_each(kind: type[Client] | type[AsyncClient], url: str, folder: Path, job: str = JOB) -> None:
    async def run() -> None:
        async with AsyncClient(url, KEY, retries=0, timeout=5) as client:
            for call in calls(client, folder, job).values():
                with suppress(UpresError):
                    await call()

    if kind is AsyncClient:
        asyncio.run(run())
        return
    with Client(url, KEY, retries=0, timeout=5) as client:
        for call in calls(client, folder, job).values():
            with suppress(UpresError):
                call()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(kind: type[Client] | type[AsyncClient], status: int, tmp_path: Path) -> None:
    with recorded(200, IMAGE) as (other, theirs), recorded(status, Location=f"{other}/image") as (own, mine):
        call_each(kind, own, tmp_path)
    assert {authorization for _, _, authorization in mine} == {f"Bearer {KEY}"}
    assert {authorization for _, _, authorization in theirs} <= {""}
    assert {path for _, path, _ in theirs} == ({"/image"} if status == 302 else set())  # the link of a result


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_key_is_not_sent_to_the_links_that_the_server_gives(
    kind: type[Client] | type[AsyncClient], tmp_path: Path
) -> None:
    with recorded(200, IMAGE) as (other, theirs):
        job = {"job_id": JOB, "status": "queued", "channel": "c"} | dict.fromkeys(("events_url", "status_url"), other)
        link = {"image_key": "uploads/x", "upload_url": f"{other}/put", "expires_at": "2100-01-01T00:00:00Z"}
        answer = json.dumps({**job, **link, "expires_in": 900}).encode()
        with recorded(201, answer, **{"Content-Type": "application/json"}) as (own, mine):
            call_each(kind, own, tmp_path)
    assert ("PUT", "/put", "") in theirs
    assert {authorization for _, _, authorization in theirs} == {""}
    assert {authorization for _, _, authorization in mine} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("job", ["../../../elsewhere", "..", ".", "x/../../../../y", "?a", "#a", "..\\..\\z", ""])
def test_the_key_is_sent_below_the_path_of_the_server_only(
    kind: type[Client] | type[AsyncClient], tmp_path: Path, job: str
) -> None:
    """Whatever id of a job a page or a list gives: another program may serve the rest of the host."""
    with recorded(404) as (url, seen):
        call_each(kind, f"{url}/prefix", tmp_path, job)
    assert len(seen) == 7
    assert all(path.startswith("/prefix/") for _, path, _ in seen), seen
