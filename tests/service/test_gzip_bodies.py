"""Request bodies that are compressed with gzip: they mean the same, within the same limits."""

import base64
import gzip
import json
import secrets
from typing import Any

import pytest
import requests

from tests.support.servers import JOB
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker
WHOLE = gzip.compress(json.dumps(JOB).encode(), mtime=0)


def post(local: Local, data: Any, path: str = "jobs") -> requests.Response:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    return requests.post(f"{local.url}/v1/{path}", data=data, headers=headers, timeout=20)


def test_a_compressed_request_is_accepted(local: Local) -> None:
    assert post(local, WHOLE).status_code == 202
    assert post(local, iter([WHOLE[:5], WHOLE[5:6], WHOLE[6:]])).status_code == 202, "in chunks"
    assert post(local, gzip.compress(json.dumps({"bytes": 5}).encode()), "uploads").status_code == 201


def test_several_members_are_one_body(local: Local) -> None:
    text = json.dumps(JOB).encode()
    assert post(local, gzip.compress(text[:9]) + gzip.compress(b"") + gzip.compress(text[9:])).status_code == 202


def test_a_large_compressed_image_comes_through_unchanged(local: Local) -> None:
    data = secrets.token_bytes(400_000) + bytes(400_000)
    answer = post(local, gzip.compress(json.dumps({"image_base64": base64.b64encode(data).decode()}).encode(), 1))
    assert answer.status_code == 202, answer.text
    [image] = [one for one in local.store.listing("uploads/") if local.store.get(one, len(data)) == data]
    local.store.delete([image])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (WHOLE[:-1], "invalid_encoding"),
        (WHOLE[:4], "invalid_encoding"),
        (WHOLE[:20] + bytes(4) + WHOLE[24:], "invalid_encoding"),
        (WHOLE[:-5] + bytes([WHOLE[-5] ^ 1]) + WHOLE[-4:], "invalid_encoding"),
        (WHOLE + b"more", "invalid_encoding"),
        (json.dumps(JOB).encode(), "invalid_encoding"),
        (gzip.compress(b"{", mtime=0), "invalid_json"),
        (gzip.compress(b"", mtime=0), "invalid_json"),
    ],
    ids=["cut", "header", "damaged", "checksum", "more", "plain", "no JSON", "empty"],
)
def test_a_damaged_body_is_said(local: Local, data: bytes, code: str) -> None:
    answer = post(local, data)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not answer.json()["retryable"]


def test_a_bomb_is_stopped_at_the_limit_of_any_body(local: Local) -> None:
    spaces = gzip.compress(b" " * 400_000_000, 1)
    assert len(spaces) < 2_000_000
    for path in ("jobs", "uploads"):
        answer = post(local, spaces, path)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
