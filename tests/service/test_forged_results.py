"""Links are made to images of results of the job's own API key only, whatever a forged event or record names."""

import logging
import secrets
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import submit
from tests.support.servers import IMAGE_HOST, function, http_server
from tests.support.workers import worker
from upres.client import Client
from upres.core import api_keys, events, keys, webhooks
from upres.core.api_keys import ApiKey
from upres.core.schema import Result, Succeeded
from upres.embedded.stack import Local
from upres.worker.outage_log import OutageLog
from upres.worker.webhooks import WebhookDispatcher

pytestmark = pytest.mark.without_worker
ID = "0" * 32


@pytest.fixture(scope="module")
def guarded(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from function(local, tmp_path_factory.mktemp("guarded"), UPRES_ACCESS="keys")


@pytest.fixture
def key(redis: Redis) -> Iterator[tuple[ApiKey, str]]:
    made = api_keys.create(redis, "somebody")
    yield made
    redis.hdel(keys.API_KEYS, made[0].key_id)


def forgeries(own: str) -> list[str]:
    """Addresses that a forged event of an owner's job may name."""
    objects = [
        "models/faithful/1/manifest.json", "uploads/0123", f"checkpoints/{ID}/0/0-1.png", "", "results/",
        f"results/deadbeef/{ID}/1/sr.png", f"results/{keys.NO_OWNER}/{ID}/1/sr.png", f"results/{ID}/1/sr.png",
        f"results/{own}/../deadbeef/{ID}/1/sr.png", f"results/{own}/{ID}/1/../../../../models/index.json",
        f"results/{own}/{ID}/1/sr.png\\n", f"results/{own}/{ID}/1/sr.png/../../x",
    ]  # fmt: skip
    return [
        *(f"s3://upres/{one}" for one in objects),
        f"s3://other/results/{own}/{ID}/1/sr.png",
        "https://evil.example",
    ]


def naming(uri: str, other: str) -> Result:
    return RESULT.model_copy(update={"sr_image_uri": uri, "original_image_uri": other})


def test_the_function_makes_links_to_results_of_the_owner_only(
    guarded: str, redis: Redis, key: tuple[ApiKey, str]
) -> None:
    headers, own = {"Authorization": f"Bearer {key[1]}"}, key[0].key_id
    fine = f"s3://upres/results/{own}/{ID}/1/sr.png"
    for uri in [fine, *forgeries(own)]:
        for result in (naming(uri, fine), naming(fine, uri)):
            job_id = submit(redis, owner=own)
            events.append(redis, Succeeded(job_id=job_id, result=result))
            for which in ("result", "original"):
                answer = requests.get(
                    f"{guarded}/v1/jobs/{job_id}/{which}", headers=headers, allow_redirects=False, timeout=20
                )
                assert answer.status_code == (302 if uri == fine else 410), uri
                assert ("X-Amz-Signature" in answer.headers.get("Location", "")) == (uri == fine)


def test_no_link_is_signed_for_a_webhook_of_a_forged_result(
    local: Local, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def receive(handler: BaseHTTPRequestHandler) -> None:
        heard.append(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
        handler.send_response(204)
        handler.end_headers()

    dispatcher = WebhookDispatcher(local.settings, local.store, OutageLog("Redis"))
    with http_server(receive, IMAGE_HOST) as url, caplog.at_level(logging.ERROR):
        fine = f"s3://upres/results/0123abcd/{ID}/1/sr.png"
        for uri in [*forgeries("0123abcd"), fine]:
            event = Succeeded(job_id=secrets.token_hex(16), result=naming(uri, fine))
            due = webhooks.Due(event.job_id, 1, url, "0123abcd", event.model_dump_json())
            dispatcher._try(due)
            assert not redis.exists(f"upres:webhook:{event.job_id}")
    assert len(heard) == 1
    assert fine in heard[0]
    assert caplog.text.count("forged") == len(forgeries(""))


def test_a_worker_makes_a_result_anew_when_the_record_of_the_work_is_forged(
    local: Local, redis: Redis, client: Client, png: bytes, tmp_path: Path
) -> None:
    with worker(local):
        made = client.upscale(png, 2)
        shared = client.upscale(png, 2)
        assert shared.result.sr_image_uri == made.result.sr_image_uri
        [work] = [one for one in redis.scan_iter("upres:work:*") if made.job_id.encode() in _stored(redis, one)]
        for uri in forgeries(keys.NO_OWNER)[:2]:
            stored = Succeeded(job_id=made.job_id, result=made.result.model_copy(update={"sr_image_uri": uri}))
            redis.hset(work, "result", stored.model_dump_json())
            again = client.upscale(png, 2)
            assert again.result.sr_image_uri == f"s3://upres/results/{keys.NO_OWNER}/{again.job_id}/1/sr.png"
            assert client.download(again.job_id) == client.download(made.job_id)


def _stored(redis: Redis, work: bytes) -> bytes:
    found = redis.hget(work, "result")
    return found if isinstance(found, bytes) else b""
