"""The image belongs to what an Idempotency-Key stands for: with another image nobody gets a job that exists."""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from redis import Redis

from tests.support.servers import function, post_job
from upres.client import Client
from upres.client import protocol as protocol_module
from upres.core import api_keys
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module", params=["open", "keys"])
def server(local: Local, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from function(local, tmp_path_factory.mktemp("server"), UPRES_ACCESS=request.param)


@pytest.fixture
def text(redis: Redis) -> str:
    return api_keys.create(redis, "somebody")[1]


def upload(url: str, text: str, data: bytes, **fields: Any) -> str:
    """Upload an image, and return its key."""
    asked = {"bytes": len(data), **fields}
    link = requests.post(f"{url}/v1/uploads", json=asked, headers={"Authorization": f"Bearer {text}"}, timeout=20)
    assert link.status_code == 201, link.text
    assert requests.put(link.json()["upload_url"], data=data, timeout=20).ok
    key: str = link.json()["image_key"]
    return key


def sha256(data: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(data).hexdigest()}


def test_an_idempotency_key_gives_no_job_to_a_request_with_another_image(server: str, text: str) -> None:
    first, second = b"the first image", b"another image"
    images = [
        {"image_key": upload(server, text, first, **sha256(first))},
        {"image_key": upload(server, text, second, **sha256(second))},
        {"image_key": upload(server, text, first)},
        {
            "image_key": upload(server, text, first)
        },  # a server that is not told the digest cannot know that it is the same
        {"image_key": f"uploads/{'0' * 32}"},
        {"image_key": f"uploads/{'0' * 32}-"},
        {"image_base64": base64.b64encode(first).decode()},
        {"image_base64": base64.b64encode(second).decode()},
        {"image_url": "https://example.org/a.png"},
    ]
    for mine in images:
        same = {"Idempotency-Key": secrets.token_hex(8)}
        job = post_job(server, text, mine, **same).json()["job_id"]
        for other in images:
            answer = post_job(server, text, other, **same)
            if other is mine:
                assert (answer.status_code, answer.json()["job_id"]) == (202, job)
            else:
                assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict"), (mine, other)
                assert job not in answer.text


def test_a_repeated_upload_of_the_same_file_finds_its_job(server: str, text: str) -> None:
    data, same = b"image", {"Idempotency-Key": secrets.token_hex(8)}
    found = [
        post_job(server, text, {"image_key": upload(server, text, data, **sha256(data))}, **same) for _ in range(2)
    ]
    assert found[0].json()["job_id"] == found[1].json()["job_id"]


def test_a_client_that_repeats_a_submission_finds_its_job(
    server: str, text: str, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "INLINE_BYTES", 100)
    key = secrets.token_hex(8)
    jobs = set()
    for _ in range(2):
        with Client(server, text) as client:  # as after a crash between both
            jobs.add(client.submit(png, 2, idempotency_key=key).job_id)
    assert len(jobs) == 1


def test_an_invalid_digest_of_an_upload_is_refused(server: str, text: str) -> None:
    for wrong in ("", "0" * 63, "A" * 64, "../" * 20, 7):
        headers = {"Authorization": f"Bearer {text}"}
        body = {"bytes": 5, "sha256": wrong}
        answer = requests.post(f"{server}/v1/uploads", json=body, headers=headers, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_digest"), wrong
