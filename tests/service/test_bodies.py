"""Bodies with images: held once in memory, within one budget for all, and not read where a limit is reached."""

import base64
import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from redis import Redis

from tests.support.leasing import image_key
from tests.support.servers import Patched, patched_function, post_job
from tests.support.waiting import wait_until
from upres.core import api_keys
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker
URL = {"image_url": "https://example.org/a.png"}


@pytest.fixture(scope="module")
def running(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    """A function that requires an API key, and takes images of the usual 20 MB."""
    changed = {"UPRES_ACCESS": "keys", "UPRES_MAX_INPUT_MEGABYTES": "20"}
    with patched_function(local, tmp_path_factory.mktemp("bodies"), {}, **changed) as patched:
        yield patched


def made(redis: Redis, **limits: Any) -> str:
    return api_keys.create(redis, "somebody", **limits)[1]


def inline(file: bytes) -> dict[str, str]:
    return {"image_base64": base64.b64encode(file).decode()}


def peak(process: psutil.Process) -> int:
    """The most memory that a process has used, in bytes (VmHWM, proc(5))."""
    with open(f"/proc/{process.pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def head(text: str, size: int | None, **headers: str) -> bytes:
    length = f"Content-Length: {size}" if size is not None else "Transfer-Encoding: chunked"
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {text}\r\n{length}\r\n{more}\r\n".encode()


def received(connection: socket.socket) -> bytes:
    """A whole answer, whose body is a JSON object."""
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(1 << 16)
        assert part
        answer += part
    return answer


def answer_to_head(running: Patched, text: str, size: int | None, **headers: str) -> bytes:
    """The answer to a request of which only the head is sent."""
    with running.connect() as connection:
        connection.sendall(head(text, size, **headers))
        return received(connection)


def test_the_largest_image_is_held_once_in_memory_and_stored_unchanged(
    running: Patched, redis: Redis, local: Local
) -> None:
    text, file = made(redis), secrets.token_bytes(1000) * 20_000
    post_job(running.url, text, inline(b"image"))  # what the first request imports does not count
    before = peak(running.child.process)
    answer = post_job(running.url, text, inline(file))
    assert answer.status_code == 202
    assert local.store.get(image_key(redis, answer.json()["job_id"])) == file
    assert peak(running.child.process) - before < 2 * len(file)


def test_the_same_image_with_one_idempotency_key_is_one_job_however_it_is_written(
    running: Patched, redis: Redis
) -> None:
    text, key = made(redis), {"Idempotency-Key": secrets.token_hex(8)}
    file, other = b"image" * 50, b"other" * 50
    lines = {"image_base64": "data:image/png;base64," + base64.encodebytes(file).decode()}
    first = post_job(running.url, text, inline(file), **key)
    assert post_job(running.url, text, lines, **key).json()["job_id"] == first.json()["job_id"]
    assert post_job(running.url, text, inline(other), **key).json()["code"] == "idempotency_conflict"


@pytest.mark.parametrize("size", [20_000_000, None])
def test_limits_of_a_key_are_checked_before_the_body_is_read(running: Patched, redis: Redis, size: int | None) -> None:
    busy, empty = made(redis, jobs_at_once=1), made(redis, megabytes_per_day=0.1)
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = post_job(running.url, busy, URL, **key)
    assert post_job(running.url, empty, inline(bytes(100_000))).status_code == 202
    for text, code in ((busy, b"too_many_jobs"), (empty, b"quota_exceeded")):
        answer = answer_to_head(running, text, size)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert code in answer
        assert b"retry-after: " in answer.lower()
    assert b"too_many_jobs" in answer_to_head(running, busy, size, **{"Idempotency-Key": "another"})
    assert post_job(running.url, busy, {**URL, "image_name": "a" * 70_000}, **key).status_code == 422  # it was read
    assert post_job(running.url, busy, URL, **key).json()["job_id"] == first.json()["job_id"]


def test_a_body_for_which_there_is_no_room_is_not_read(local: Local, redis: Redis, tmp_path: Path) -> None:
    limits: dict[str, float] = {"BODIES_BYTES": 1_000_000, "BODY_PIECE": 1_000}
    with patched_function(local, tmp_path, limits, UPRES_ACCESS="keys") as small:
        mine, other = made(redis), made(redis)
        body = b'{"image_base64": "' + base64.b64encode(bytes(700_000))
        with small.connect() as connection:
            connection.sendall(head(mine, 1_300_000) + body)
            wait_until(lambda: answer_or_nothing(small, other).startswith(b"HTTP/1.1 503 "))
            refused = answer_to_head(small, other, 1_200_000)
            assert b"function_unavailable" in refused
            assert b"retry-after: " in refused.lower()
            growing = post_job(small.url, other, inline(bytes(330_000)))
            assert growing.status_code == 503, "its size alone would have been little enough"
            assert post_job(small.url, other, URL).status_code == 202
        wait_until(lambda: post_job(small.url, other, inline(bytes(400_000))).status_code == 202)


def answer_or_nothing(running: Patched, text: str) -> bytes:
    """The answer to the head of a request; nothing when the function waits for the body."""
    with running.connect() as connection:
        connection.settimeout(0.3)
        connection.sendall(head(text, 1_200_000))
        try:
            return received(connection)
        except TimeoutError:
            return b""


def test_a_body_in_chunks_of_one_byte_is_read_within_seconds(running: Patched, redis: Redis, local: Local) -> None:
    file = secrets.token_bytes(60_000)
    body = b'{"image_base64": "' + base64.b64encode(file) + b'"}'
    chunks = b"".join(b"1\r\n" + body[at : at + 1] + b"\r\n" for at in range(len(body)))
    with running.connect() as connection:
        connection.sendall(head(made(redis), None) + chunks + b"0\r\n\r\n")
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 202 ")
    job = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert local.store.get(image_key(redis, job["job_id"])) == file


@pytest.mark.parametrize(
    "body", [b'{"image_base64": "AAA\n"}', b'{"image_base64": "AA\\x"}', b'{"image_base64": "AAAA']
)
def test_an_image_in_invalid_json_is_invalid_json(running: Patched, redis: Redis, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {made(redis)}"}
    assert (
        requests.post(f"{running.url}/v1/jobs", data=body, headers=headers, timeout=20).json()["code"] == "invalid_json"
    )
