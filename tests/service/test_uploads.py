"""Uploads of images directly to the store, and responses that wait for the end of the job (`Prefer: wait`)."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from tests.support.paths import SAMPLES
from tests.support.servers import function
from upres.client import Client
from upres.client import protocol as client_module
from upres.core import api_keys, keys
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.function.parse import MAX_WAIT, preferred_wait


def link(url: str, size: Any, **headers: str) -> requests.Response:
    """Request an upload URL for an image of `size` bytes."""
    return requests.post(f"{url}/v1/uploads", json={"bytes": size}, headers=headers, timeout=20)


def test_image_uploaded_with_put_is_enlarged(local: Local, client: Client, png: bytes) -> None:
    answer = link(local.url, len(png))
    assert answer.status_code == 201
    assert requests.put(answer.json()["upload_url"], data=png, timeout=20).ok
    body = {"image_key": answer.json()["image_key"], "upscale_factor": 2}
    job = requests.post(f"{local.url}/v1/jobs", json=body, timeout=20).json()["job_id"]
    assert list(client.events(job))[-1].type == "succeeded"


def test_upload_url_accepts_only_the_announced_size_key_and_method(local: Local, store: Store, png: bytes) -> None:
    answer = link(local.url, len(png)).json()
    for data in (png + b"x", png[:-1], b""):
        assert not requests.put(answer["upload_url"], data=data, timeout=20).ok
    assert not store.exists(answer["image_key"])
    other = answer["upload_url"].replace(answer["image_key"], keys.upload("0" * 32))
    assert not requests.put(other, data=png, timeout=20).ok
    assert not requests.get(answer["upload_url"], timeout=20).ok


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"bytes": 10**9}, 413, "too_many_bytes"),
        ({"bytes": 0}, 422, "invalid_size"),
        ({"bytes": "many"}, 422, "invalid_size"),
        ({"bytes": True}, 422, "invalid_size"),
        ({"bytes": 5, "name": "x"}, 422, "unknown_field"),
        ({}, 422, "invalid_size"),
        ([], 400, "invalid_json"),
        ("x", 400, "invalid_json"),
    ],
)
def test_upload_request_with_invalid_size_is_refused(local: Local, body: Any, status: int, code: str) -> None:
    answer = requests.post(f"{local.url}/v1/uploads", json=body, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_store_allows_uploads_from_web_pages_by_cors(local: Local, png: bytes) -> None:
    url = link(local.url, len(png)).json()["upload_url"]
    headers = {"Origin": local.url, "Access-Control-Request-Method": "PUT"}
    assert requests.options(url, headers=headers, timeout=20).headers["Access-Control-Allow-Origin"] == "*"


def test_upload_requests_count_for_the_rate_limit_of_the_api_key(local: Local, redis: Redis, tmp_path: Any) -> None:
    _, text = api_keys.create(redis, "somebody", requests_per_minute=2)
    for url in function(local, tmp_path, UPRES_ACCESS="keys"):
        authorization = {"Authorization": f"Bearer {text}"}
        answers = [link(url, 5, **authorization) for _ in range(3)]
        assert [one.status_code for one in answers] == [201, 201, 429]
        assert 20 <= int(answers[2].headers["Retry-After"]) <= 30
        assert link(url, 5).status_code == 401


def test_client_uploads_an_image_and_enlarges_one_above_the_inline_limit(
    client: Client, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "INLINE_BYTES", 100)
    requested: list[str] = []
    monkeypatch.setattr(client._http, "event_hooks", {"request": [lambda request: requested.append(request.method)]})
    received: list[tuple[int, int]] = []
    key = client.upload(png, lambda sent, total: received.append((sent, total)))
    assert key.startswith("uploads/")
    assert received[-1] == (len(png), len(png))
    requested.clear()
    assert client.upscale(png, 2).result.width == 128
    assert "PUT" in requested  # it was uploaded, not sent inline


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", 0), ("wait=5", 5), ("respond-async, wait=10", 10), ('WAIT = "7"', 7), ("wait=99999", MAX_WAIT),
        ("wait=-1", 0), ("wait=x", 0), ("wait", 0), ("nowait=5", 0), ("wait=5x", 0), ("handling=lenient; wait=3", 3),
    ],
)  # fmt: skip
def test_wait_in_prefer_header_is_parsed_and_limited(header: str, seconds: float) -> None:
    assert preferred_wait(header) == seconds


def waiting(url: str, data: bytes, seconds: float, factor: int = 2) -> requests.Response:
    """Submit a job; the function waits for its end for at most `seconds` before it responds."""
    body = {"image_base64": base64.b64encode(data).decode(), "upscale_factor": factor}
    return requests.post(f"{url}/v1/jobs", json=body, headers={"Prefer": f"wait={seconds:g}"}, timeout=40)


def test_response_with_prefer_wait_contains_the_ended_job(local: Local, png: bytes) -> None:
    answer = waiting(local.url, png, 20)
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert answer.json()["status"] == "succeeded"
    assert requests.get(answer.json()["result"]["sr_image_url"], timeout=20).ok
    failed = waiting(local.url, b"no image", 20)
    assert (failed.status_code, failed.json()["failure"]["code"]) == (200, "not_an_image")


def test_prefer_wait_returns_status_202_if_the_job_takes_longer(local: Local, client: Client) -> None:
    begin = time.monotonic()
    answer = waiting(local.url, (SAMPLES / "coffee.png").read_bytes(), 1, factor=8)
    assert 0.9 < time.monotonic() - begin < 10
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["Location"] == answer.json()["status_url"]
    client.cancel(answer.json()["job_id"])


def test_presigned_urls_use_the_public_url_of_the_store(local: Local, tmp_path: Path, png: bytes) -> None:
    public = local.environment["UPRES_S3_ENDPOINT_URL"].replace("127.0.0.1", "localhost")
    for url in function(local, tmp_path, UPRES_S3_PUBLIC_URL=public):
        link = requests.post(f"{url}/v1/uploads", json={"bytes": len(png)}, timeout=10).json()
        assert link["upload_url"].startswith(f"{public}/")
        assert requests.put(link["upload_url"], data=png, timeout=10).ok
        job = requests.post(f"{url}/v1/jobs", json={"image_key": link["image_key"]}, timeout=10).json()
        with Client(url) as client:
            client.wait(job["job_id"])
        result = requests.get(f"{url}/v1/jobs/{job['job_id']}/result", timeout=10, allow_redirects=False)
        assert result.headers["Location"].startswith(f"{public}/")
        assert requests.get(result.headers["Location"], timeout=10).ok
