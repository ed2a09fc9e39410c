"""The store when answers end early, connections are forgotten, or nothing comes: real S3 behind a fault proxy."""

import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.chaos.proxy import FaultProxy
from tests.support.cut_bodies import Cut, cut_bodies
from tests.support.gate import before
from tests.support.pushing import Pushed
from tests.support.servers import body, http_server
from tests.support.tls import Authority, tls_server
from upres.core import keys, s3_clients, storage
from upres.core.errors import ModelError, SettingsError, StoreUnavailable
from upres.core.storage import Store
from upres.embedded.stack import Local

DATA = secrets.token_bytes(1 << 20)


def behind(local: Local, url: str, ca_file: Path | None = None, **options: Any) -> Store:
    """The store of `local`, reached at another address."""
    key_id, secret = local.environment["AWS_ACCESS_KEY_ID"], local.environment["AWS_SECRET_ACCESS_KEY"]
    session = boto3.session.Session(key_id, secret, region_name="us-east-1")
    changed = {"s3_endpoint_url": url, "ca_file": ca_file}
    return Store(local.settings.model_copy(update=changed), session, **options)


@pytest.fixture(scope="module")
def key(local: Local) -> Iterator[str]:
    key = keys.upload(secrets.token_hex(16))
    local.store.put(key, DATA)
    yield key
    local.store.delete([key])


@pytest.mark.parametrize("limit", [None, len(DATA), 2 * len(DATA), 1000])
@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_a_body_that_is_cut_off_is_read_again(local: Local, key: str, cut: Cut, limit: int | None) -> None:
    with http_server(cut_bodies(str(local.settings.s3_endpoint_url), [cut, cut]), "127.0.0.1") as url:
        data = behind(local, url).get(key, limit)
    assert data == (DATA if limit is None else DATA[: limit + 1])


@pytest.mark.parametrize("limit", [None, len(DATA)])
@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_a_body_that_is_always_cut_off_is_an_unavailable_store(
    local: Local, key: str, cut: Cut, limit: int | None
) -> None:
    """Before, a connection that ended early passed for the whole file, and the client's image was called truncated."""
    with http_server(cut_bodies(str(local.settings.s3_endpoint_url), [cut] * 2), "127.0.0.1") as url:
        store = behind(local, url, attempts=2)
        with pytest.raises(StoreUnavailable):
            store.get(key, limit)
    assert store.failures["no_answer"] == 1


@pytest.mark.parametrize("cut", ["fin", "rst", "damaged"])
def test_weights_whose_download_is_cut_off_or_damaged_are_downloaded_again(
    local: Local, tmp_path: Path, cut: Cut
) -> None:
    pushed = Pushed(local.store, secrets.token_hex(8), tmp_path)
    pushed.push()
    with http_server(cut_bodies(str(local.settings.s3_endpoint_url), ["", cut, "", cut]), "127.0.0.1") as url:
        pushed.store = behind(local, url)
        assert pushed.pull(tmp_path / "cache").files
    with http_server(cut_bodies(str(local.settings.s3_endpoint_url), ["", *[cut] * 3]), "127.0.0.1") as url:
        pushed.store = behind(local, url)
        with pytest.raises(ModelError if cut == "damaged" else StoreUnavailable):
            pushed.pull(tmp_path / "other")


def test_idle_connections_are_probed_before_a_firewall_forgets_them(
    local: Local, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Firewalls forget a connection after some minutes; the first probe of TCP is by default sent after two hours."""
    opened: list[tuple[int, int]] = []
    connect = socket.socket.connect

    def recorded(self: socket.socket, address: Any) -> None:
        connect(self, address)
        idle = self.getsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 16))
        opened.append((self.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), idle))

    monkeypatch.setattr(socket.socket, "connect", recorded)
    store = behind(local, str(local.settings.s3_endpoint_url))
    store.get(key)
    store.put(key, DATA)
    assert opened
    assert all(on and idle <= 60 for on, idle in opened)


def test_a_store_that_sends_nothing_is_given_up_soon_when_something_is_read(
    local: Local, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put may take longer, because some stores answer only when a large file is on their disk."""
    monkeypatch.setattr(s3_clients, "READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = behind(local, f"http://127.0.0.1:{silent.getsockname()[1]}", attempts=1)
        for read in (store.get, store.exists):
            with pytest.raises(StoreUnavailable):
                read(key)


def test_a_store_whose_certificate_has_a_private_authority_is_reached(local: Local, key: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    answer = cut_bodies(str(local.settings.s3_endpoint_url), [])
    with tls_server(authority.issue("IP:127.0.0.1"), answer, "127.0.0.1") as (port, _):
        url = f"https://127.0.0.1:{port}"
        assert behind(local, url, authority.file).get(key) == DATA
        with pytest.raises(StoreUnavailable):
            behind(local, url, attempts=1).get(key)


def test_certificates_that_cannot_be_joined_are_a_settings_error(
    local: Local, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = behind(local, str(local.settings.s3_endpoint_url), Authority(tmp_path).file)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"UPRES_CA_FILE: .*No such file.*TMPDIR"):
        store.get(key)


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout"), (502, None)]
)
def test_what_a_busy_store_refuses_is_asked_again(local: Local, key: str, status: int, code: str | None) -> None:
    """Stores say so when they are overwhelmed, or when a request came too slowly; a proxy says it in HTML."""
    refusal = f"<Error><Code>{code}</Code></Error>" if code else "<html>Bad Gateway</html>"
    forward = cut_bodies(str(local.settings.s3_endpoint_url), [])
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        (body(refusal.encode(), status) if len(asked) == 1 else forward)(handler)

    with http_server(answer, "127.0.0.1") as url:
        assert behind(local, url).get(key) == DATA
    assert len(asked) == 2


def test_thirty_threads_keep_their_connections_for_later_requests(
    local: Local, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """botocore keeps ten by default, and logs each that it discards (boto/botocore#619)."""
    together = threading.Barrier(30)
    with FaultProxy(int(str(local.settings.s3_endpoint_url).rpartition(":")[2])) as proxy, proxy.latency(0.1):
        store = behind(local, f"http://127.0.0.1:{proxy.port}")

        def ask(number: int) -> bool:
            together.wait(20)
            return store.exists(key)

        with caplog.at_level(logging.WARNING), ThreadPoolExecutor(30) as pool:
            assert all(pool.map(ask, range(30)))
    assert "pool is full" not in caplog.text


def test_a_store_that_refuses_all_requests_is_logged_once_a_minute(
    local: Local, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with before(local.settings.s3_endpoint_url) as gate, caplog.at_level(logging.WARNING, "upres.store"):
        gate.refuses, store = True, behind(local, gate.url)
        for repeat in (60, 60, 60, 0):
            monkeypatch.setattr(storage, "REPEAT_SECONDS", repeat)
            with pytest.raises(StoreUnavailable, match="ExpiredToken"):
                store.get("key")
    assert len(caplog.records) == 2


def test_a_small_object_is_sent_without_a_question_to_the_store(local: Local) -> None:
    """The question takes a round trip; it spares the store a large body that it would refuse."""
    came: list[tuple[str | None, int]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if asked := handler.headers["Expect"]:
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        came.append((asked, len(handler.rfile.read(int(handler.headers["Content-Length"])))))
        body(b"")(handler)

    small, large = s3_clients.SMALL_BYTES, s3_clients.SMALL_BYTES + 1
    with http_server(answer, "127.0.0.1") as url:
        for size in (small, large):
            behind(local, url).put("uploads/x", DATA[:size])
    assert came == [(None, small), ("100-continue", large)]
