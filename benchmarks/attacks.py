"""What one API key can do to hurt others, all at once: the attackers of `benchmarks.abuse`, a process of their own.

    UPRES_API_KEY=upres_… python -m benchmarks.attacks URL [--flood]

They begin at the first line on standard input. At its end they stop, and print how often each attack got each status.
An attack that may not be repeated at once (429) pauses for REFUSED_SECONDS, and with --flood not at all.
"""

import argparse
import asyncio
import base64
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

NAMES = ("posts", "reads", "streams")
HOST = "127.0.0.2"
"""Address of the servers that send slowly or nothing: images, and receivers of webhooks."""
SENDER = "127.0.0.3"
"""Address of the attackers: limits for addresses are theirs alone."""
BURST, INTERVAL = 120, 0.5
"""POST requests that a key may send at once by default, and seconds between two of them afterwards."""
AT_ONCE = 20
"""POST requests in the burst that are sent at the same time."""
READERS, STREAMERS, STREAMS = 30, 4, 100
"""Connections that read, or open one stream after the other, in a loop; streams that stay open for each slow job."""
SLOW_JOBS = 2
"""Slow jobs at a time that are not cancelled. Each has a slot for ten seconds; more would occupy all slots."""
REFUSED_SECONDS = 0.25
LARGE = 27_000_000
"""Bytes of the large bodies: nearly the largest that the function takes."""
IMAGE = b"\x89PNG\r\n\x1a\n" + os.urandom(19_900_000)
"""A file that begins as an image and is none, so that the job fails in the decoder and computes nothing."""
BRACKETS = b'{"image_url":[' + b"[]," * (LARGE // 3) + b"[]]}"


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes

    def field(self, name: str) -> Any:
        """A field of a JSON body."""
        return json.loads(self.body)[name]


class Connection:
    """A connection that sends one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, key: str) -> None:
        self._reader, self._writer = reader, writer
        self._lines = f"Host: {host}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")

    def send(self, method: str, path: str, body: bytes = b"", length: int | None = None, lines: str = "") -> None:
        """Send a request with more header lines; `length` is what its head says if the body is not complete."""
        size = len(body) if length is None else length
        head = f"{method} {path} HTTP/1.1\r\n{self._lines}{lines}Content-Length: {size}\r\n\r\n"
        self._writer.write(head.encode())
        self._writer.write(body)

    async def head(self) -> tuple[int, int]:
        """Read the head of an answer; return its status and the size of its body."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = head.partition("content-length:")[2].partition("\r\n")[0]
        return int(head.split(" ", 2)[1]), int(size or 0)

    async def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request, and return its answer."""
        self.send(method, path, body)
        status, size = await self.head()
        return Answer(status, await self._reader.readexactly(size))

    async def rest(self) -> None:
        """Read until the server closes."""
        while await self._reader.read(1 << 16):
            pass

    def close(self) -> None:
        """Close it."""
        self._writer.close()


class Attackers:
    """All attacks on one function with one API key."""

    def __init__(self, url: str, key: str, names: Sequence[str], flood: bool) -> None:
        self._address, self._key, self._names, self._flood = urlsplit(url), key, names, flood
        self.counts: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended_job, self._ended_stream, self._slow_jobs = "", "", 0
        self._sending = asyncio.Semaphore(AT_ONCE)

    async def run(self, begin: Awaitable[object], end: Callable[[], Awaitable[object]]) -> None:
        """Start the slow servers, and attack between `begin` and `end`."""
        loop = asyncio.get_running_loop()
        slow, mute = [await loop.create_server(kind, HOST) for kind in (Slow, asyncio.Protocol)]
        self._image, self._receiver = (f"http://{HOST}:{one.sockets[0].getsockname()[1]}/a.png" for one in (slow, mute))
        fields = {"image_base64": base64.b64encode(IMAGE).decode(), "webhook_url": self._receiver}
        self._no_image_body = json.dumps(fields).encode()
        print("ready", flush=True)
        await begin
        await self._slow_job()
        attacks = {
            "posts": (self._posts, 1),
            "reads": (self._read, READERS),
            "streams": (self._open_streams, STREAMERS),
        }
        for name in self._names:
            attack, count = attacks[name]
            for _ in range(count):
                self._start(attack())
        await end()
        for task in self._tasks:
            task.cancel()
        slow.close()
        mute.close()

    def _start(self, attack: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._noted(attack))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _noted(self, attack: Coroutine[Any, Any, None]) -> None:
        """Run an attack until the function closes its connection."""
        try:
            await attack
        except (OSError, EOFError) as error:
            self.counts[f"closed: {type(error).__name__}"] += 1

    async def _connect(self, url: str = "", key: bool = True) -> Connection:
        address = urlsplit(url) if url else self._address
        opened = await asyncio.open_connection(address.hostname, address.port, local_addr=(SENDER, 0))
        return Connection(*opened, address.netloc, self._key if key else "")

    async def _posts(self) -> None:
        """Send POST requests of all kinds: a burst, and then as many as a key may send."""
        kinds = (
            self._brackets,
            self._slow_job,
            self._no_image,
            self._half,
            self._upload,
            self._slow_job,
            self._invalid,
        )
        number = 0
        while True:
            await self._sending.acquire()
            self._start(self._one(kinds[number % len(kinds)]))
            number += 1
            if number > BURST:
                await asyncio.sleep(INTERVAL)

    async def _one(self, kind: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await kind()
        finally:
            self._sending.release()

    async def _post(self, name: str, path: str, body: bytes) -> Answer:
        connection = await self._connect()
        try:
            answer = await connection.ask("POST", path, body)
        finally:
            connection.close()
        self.counts[f"{name} {answer.status}"] += 1
        return answer

    async def _brackets(self) -> None:
        await self._post("brackets", "/v1/jobs", BRACKETS)

    async def _no_image(self) -> None:
        await self._post("no image", "/v1/jobs", self._no_image_body)

    async def _half(self) -> None:
        """Send half of a body, and wait; without a place among AT_ONCE, because it takes half a minute."""
        connection = await self._connect()
        connection.send("POST", "/v1/jobs", IMAGE[: LARGE // 2], LARGE)
        self.counts["half a body"] += 1
        self._start(connection.rest())

    async def _upload(self) -> None:
        """Ask for a link, and upload a large file to the store with it."""
        answer = await self._post("upload link", "/v1/uploads", json.dumps({"bytes": len(IMAGE)}).encode())
        if answer.status == 201:
            link = urlsplit(answer.field("upload_url"))
            connection = await self._connect(link.geturl(), key=False)
            stored = await connection.ask("PUT", f"{link.path}?{link.query}", IMAGE)
            self.counts[f"upload {stored.status}"] += 1
            connection.close()

    async def _invalid(self) -> None:
        await self._post(
            "invalid", "/v1/jobs", json.dumps({"upscale_factor": [{"a": 1}] * 1000, "x" * 80: []}).encode()
        )

    async def _slow_job(self) -> None:
        """Submit a job with a slow address; follow it with many streams, or cancel it when there are SLOW_JOBS."""
        fields = {"image_url": self._image, "webhook_url": self._receiver}
        answer = await self._post("slow job", "/v1/jobs", json.dumps(fields).encode())
        if answer.status != 202:
            return
        job, stream = answer.field("job_id"), urlsplit(answer.field("events_url"))
        path = f"{stream.path}?{stream.query}"
        if self._slow_jobs < SLOW_JOBS and self._ended_job:
            self._start(self._follow(path))
            return
        connection = await self._connect()
        cancelled = await connection.ask("DELETE", f"/v1/jobs/{job}")
        self.counts[f"cancel {cancelled.status}"] += 1
        connection.close()
        self._ended_job, self._ended_stream = job, path

    async def _follow(self, path: str) -> None:
        """Open STREAMS streams of a job, and read them until it ends."""
        self._slow_jobs += 1
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(STREAMS):
                    group.create_task(self._stream("followed stream", path))
        except* OSError:
            self.counts["streams that broke"] += 1
        finally:
            self._slow_jobs -= 1

    async def _open_streams(self) -> None:
        """Open the stream of a job that has ended, again and again."""
        while True:
            await self._stream("stream", self._ended_stream)

    async def _stream(self, name: str, path: str) -> None:
        connection = await self._connect(key=False)
        try:
            connection.send("GET", path, lines="Connection: close\r\n")
            status, _ = await connection.head()
            self.counts[f"{name} {status}"] += 1
            if status == 200:
                await connection.rest()
            else:
                await self._pause(status)
        finally:
            connection.close()

    async def _read(self) -> None:
        """Send requests that read, on one connection."""
        connection = await self._connect()
        while True:
            for path in (f"/v1/jobs/{self._ended_job}", f"/v1/jobs/{self._ended_job}/preview", "/v1/models"):
                answer = await connection.ask("GET", path)
                self.counts[f"read {answer.status}"] += 1
                await self._pause(answer.status)

    async def _pause(self, status: int) -> None:
        if status == 429 and not self._flood:
            await asyncio.sleep(REFUSED_SECONDS)


class Slow(asyncio.Protocol):
    """A server that answers at once, and then sends one byte a second."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer before the request has come (see asyncio.Protocol)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self._send_on()

    def _send_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"a")
            asyncio.get_running_loop().call_later(1, self._send_on)


def main() -> int:
    """Attack from the first line on standard input until its end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("url", help="address of the function")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="attacks; default: all")
    parser.add_argument("--flood", action="store_true", help="do not pause after a 429")
    options = parser.parse_args()
    attackers = Attackers(options.url, os.environ["UPRES_API_KEY"], options.only, options.flood)

    async def attack() -> None:
        line = asyncio.to_thread(sys.stdin.readline)
        await attackers.run(line, lambda: asyncio.to_thread(sys.stdin.read))

    asyncio.run(attack())
    print(json.dumps(dict(sorted(attackers.counts.items()))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
