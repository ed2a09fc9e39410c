"""The caller's environment: wrong addresses, keys, proxies and certificates; timeouts; several event loops."""

import asyncio
import http.server
import pickle
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.command import upres
from tests.support.paths import SAMPLES
from tests.support.servers import body, http_server
from upres.client import AsyncClient, Client, JobTimeout, ServerUnreachable
from upres.client.calls import Call
from upres.client.errors import ClientSetupError
from upres.client.protocol import INLINE_BYTES
from upres.core.schema import Progress
from upres.embedded.child import free_port
from upres.embedded.stack import Local

PROXIES = [f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UPRES_URL", "UPRES_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", "The proxy in ALL_PROXY cannot be used: .*socks"),
        ("ALL_PROXY", "socks://127.0.0.1:9", "The proxy in ALL_PROXY cannot be used: Unknown scheme"),
        ("SSL_CERT_FILE", "/there/is/none.pem", "SSL_CERT_FILE names /there/is/none.pem, which does not exist"),
        ("UPRES_API_KEY", "upres_“abc”", "UPRES_API_KEY contains '“', '”', which no key has"),
        ("UPRES_API_KEY", "upres_a\r\nb", r"UPRES_API_KEY contains '\\n', '\\r', which no key has"),
        ("UPRES_URL", "http://a\rb", "UPRES_URL is not a URL"),
        ("UPRES_URL", "http://127.0.0.1:99999", "UPRES_URL has the port 99999; ports end at 65535"),
        ("UPRES_URL", "ftp://example.org", "UPRES_URL must begin with http:// or https://"),
        ("UPRES_URL", "http://", "UPRES_URL must begin with http:// or https:// and a host"),
        ("UPRES_URL", "http://example.org/?key=x", "UPRES_URL must not contain"),
    ],
)
def test_a_wrong_variable_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ClientSetupError, match=says):
        Client()

    async def use() -> None:
        async with AsyncClient() as client:
            await client.check()

    with pytest.raises(ClientSetupError, match=says):
        asyncio.run(use())
    done = upres(None, "a.png")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.match(says, done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_blanks_around_address_and_key_are_ignored(local: Local) -> None:
    with Client(f" {local.url}/\n", " key\n") as client:
        client.check()
        assert client.url == local.url


def test_a_dead_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    with Client("http://upres.example") as client, pytest.raises(ServerUnreachable) as caught:
        client.check()
    assert f"through the proxy in http_proxy (127.0.0.1:{port})" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_can_never_pass_is_not_repeated() -> None:
    begin = time.monotonic()
    with (
        Client("http://no-such-host.invalid") as client,
        pytest.raises(ServerUnreachable, match="is unknown") as caught,
    ):
        client.status("0" * 32)
    assert not caught.value.retryable
    with (
        http_server(body(b""), "127.0.0.1") as plain,
        Client(plain.replace("http:", "https:")) as client,
        pytest.raises(ServerUnreachable, match="not speak https"),
    ):
        client.status("0" * 32)
    assert time.monotonic() - begin < 10  # five attempts each would take longer, because of their pauses


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTPS server with a self-signed certificate that answers as /healthz does; yields its URL and certificate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body(b'{"status": "ok"}')(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://localhost:{server.server_address[1]}", certificate
        server.shutdown()
        thread.join()


def test_a_private_certificate_is_accepted_when_it_is_given(secure: tuple[str, Path]) -> None:
    url, certificate = secure
    with Client(url) as client, pytest.raises(ServerUnreachable, match=r"not trusted .*--cacert"):
        client.check()
    with Client(url, verify=str(certificate)) as client:
        client.check()
    with Client(url, verify=False) as client:
        client.check()
    with pytest.raises(ClientSetupError, match="cannot be read"):
        Client(url, verify="/there/is/none.pem")


def test_the_timeout_includes_the_upload(tmp_path: Path) -> None:
    """A store that accepts the connection and then reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as store:
        store.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link = f"http://127.0.0.1:{store.getsockname()[1]}/put"
        answer = f'{{"upload_url": "{link}", "image_key": "k", "expires_at": "2030-01-01T00:00:00Z"}}'.encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body(answer, 201)(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            begin = time.monotonic()
            with Client(f"http://127.0.0.1:{server.server_address[1]}") as client, pytest.raises(JobTimeout):
                client.upscale(b"\x89PNG" + bytes(INLINE_BYTES * 4), timeout=1)
            assert time.monotonic() - begin < 5
            server.shutdown()
            thread.join()


def test_a_wait_is_shorter_than_the_response_timeout(local: Local) -> None:
    """Else the client would give up just before the server answers, and lose an accepted job."""
    client = Client(local.url, timeout=5, retries=0)
    steps = client._api.submit(b"image", 2, {}, None, 25, lambda sent, total: None)
    call = next(steps)
    assert isinstance(call, Call)
    assert call.headers["Prefer"] == "wait=4"
    client.close()


def test_an_async_client_works_in_several_event_loops_and_survives_pickling(local: Local) -> None:
    client = AsyncClient(local.url)

    async def use(client: AsyncClient) -> None:
        async with client:
            await asyncio.gather(*(client.check() for _ in range(3)))

    for _ in range(2):
        asyncio.run(use(client))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: asyncio.run(use(client)), range(4)))
    asyncio.run(use(pickle.loads(pickle.dumps(client))))


@pytest.mark.parametrize("keep_job", [False, True])
def test_a_cancelled_upscale_cancels_its_job_unless_it_is_to_be_kept(local: Local, keep_job: bool) -> None:
    ids: list[str] = []

    async def use() -> None:
        async with AsyncClient(local.url) as client:
            begun = asyncio.Event()

            def on_event(event: object) -> None:
                if isinstance(event, Progress):
                    ids.append(event.job_id)
                    begun.set()

            photo = SAMPLES / "coffee.png"
            task = asyncio.create_task(client.upscale(photo, 8, on_event=on_event, keep_job=keep_job))
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(use())
    with Client(local.url) as client:
        assert (client.status(ids[0]).status == "cancelled") != keep_job
        client.cancel(ids[0])
