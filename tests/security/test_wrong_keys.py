"""What a request with a wrong API key costs, and what happens when a key is revoked during a request."""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.support.servers import Patched, patched_function
from tests.support.waiting import wait_until
from upres.core import api_keys
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module")
def guarded(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    with patched_function(local, tmp_path_factory.mktemp("guarded"), {}, UPRES_ACCESS="keys") as running:
        yield running


@pytest.mark.parametrize(("text", "looks"), [(f"upres_00000000_{'A' * 43}", 1), ("nothing", 0), ("", 0)])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/uploads", "/v1/estimate", "/v1/models/any/jobs"])
def test_a_wrong_api_key_costs_one_look_and_no_body(
    guarded: Patched, redis: Redis, path: str, text: str, looks: int
) -> None:
    def asked() -> int:
        known = redis.info("commandstats").get("cmdstat_hget", {"calls": 0})
        return int(known["calls"])

    before = asked()
    with guarded.connect() as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {text}\r\nContent-Length: 9000\r\n\r\n"
        connection.sendall(head.encode())  # and nothing of the body
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")
    assert asked() - before == looks


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/jobs", b'{"image_url":"https://example.org/"}'), ("/v1/uploads", b'{"bytes":5}')]
)
def test_a_key_that_is_revoked_while_a_body_is_sent_is_rejected(
    guarded: Patched, redis: Redis, path: str, body: bytes
) -> None:
    key, text = api_keys.create(redis, "somebody")
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {text}\r\nContent-Length: {len(body)}\r\n\r\n"
    with guarded.connect() as connection:
        connection.sendall(head.encode() + body[:-1])
        wait_until(lambda: redis.exists(f"upres:key:{key.key_id}:rate"))  # so the key has been checked
        api_keys.revoke(redis, key.key_id)
        connection.sendall(body[-1:])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 ")
