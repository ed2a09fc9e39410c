"""rediss:// in UPRES_REDIS_URL: the connection is encrypted, and only a server with a trusted certificate is used."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.exceptions import RedisError

from tests.support.tls import Authority
from upres.core.queue import connect_with_timeout
from upres.core.settings import Settings
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@contextmanager
def tls_front(pair: Path, port: int) -> Iterator[int]:
    """A port that takes TLS connections and passes them on to a plain port of this machine, one after the other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass

    def serve() -> None:
        try:
            while True:
                plain, _ = listening.accept()
                try:
                    encrypted = context.wrap_socket(plain, server_side=True)
                except OSError:  # the client does not trust the certificate
                    plain.close()
                    continue
                with encrypted, socket.create_connection(("127.0.0.1", port)) as behind:
                    back = threading.Thread(target=pump, args=(behind, encrypted))
                    back.start()
                    pump(encrypted, behind)
                    behind.shutdown(socket.SHUT_RDWR)
                    back.join()
        except OSError:
            return

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_redis_is_used_over_tls_if_its_certificate_is_trusted(local: Local, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "foreign").mkdir()
    ours, foreign = (Authority(tmp_path / name) for name in ("ours", "foreign"))
    behind = urlsplit(local.settings.redis_url)
    assert behind.port
    with tls_front(ours.issue("IP:127.0.0.1"), behind.port) as port:

        def ping(url: str) -> bool:
            with connect_with_timeout(Settings.from_environment({"UPRES_REDIS_URL": url})) as connection:
                return bool(connection.ping())

        assert ping(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ours.file}")
        for wrong in (
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={foreign.file}",
            f"rediss://127.0.0.1:{port}/0",
            f"redis://127.0.0.1:{port}/0",
        ):
            with pytest.raises(RedisError):
                ping(wrong)
