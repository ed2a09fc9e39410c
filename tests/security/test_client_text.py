"""Text that clients choose does not reach keys, and is escaped in headers; images of two owners stay apart."""

import secrets
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from redis import Redis

from tests.support.servers import post_job
from upres.core import keys
from upres.core.storage import Store
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker
ODD = 'a"\r\nX-Evil: 1;\u202e☃ <script>.png'


def test_text_of_clients_is_in_no_key_of_redis(local: Local, redis: Redis) -> None:
    mark = secrets.token_hex(8)
    body = {
        "image_url": f"https://{mark}.example/{mark}.png",
        "image_name": mark,
        "webhook_url": f"https://{mark}.example/",
    }
    assert post_job(local.url, None, body, **{"Idempotency-Key": mark}).status_code == 202
    for path in (f"/v1/jobs/{mark}", f"/v1/jobs/{mark}/preview", f"/v1/models/{mark}", f"/v1/jobs/{'0' * 32}{mark}"):
        assert requests.get(local.url + path, timeout=20).status_code == 404
    assert post_job(local.url, None, {"image_url": "https://a.example/", "model": mark}).status_code == 422
    assert [name for name in redis.scan_iter() if mark.encode() in name] == []


def test_a_file_name_is_escaped_in_the_header_of_a_download(store: Store) -> None:
    key = f"uploads/{secrets.token_hex(16)}"
    store.put(key, b"image")
    link = store.presign(key, ODD)
    [asked] = parse_qs(urlsplit(link).query)["response-content-disposition"]
    answer = requests.get(link, timeout=20)
    assert answer.ok
    assert "X-Evil" not in answer.headers
    for header in (asked, answer.headers.get("Content-Disposition", asked)):
        name = header.removeprefix("inline; filename*=UTF-8''")
        assert name != header
        assert name.isascii()
        assert not set(name) & set('"\r\n; <>')


def test_identical_images_of_two_owners_are_different_work() -> None:
    owners = (None, "11111111", "22222222")
    assert len({keys.work(owner, b"image", "0" * 64, 4, "png") for owner in owners}) == 3
