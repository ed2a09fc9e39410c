"""Certificates of private authorities (UPRES_CA_FILE), over real TLS; what is not trusted is called so."""

import socket
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import IMAGE_HOST, body
from tests.support.tls import Authority, tls_server
from upres.core.errors import SettingsError, UrlUnreachable
from upres.core.settings import Settings
from upres.worker.fetch import fetch, post
from upres.worker.guard import FetchPolicy, _tls

NAME = "images.example"
POLICY = FetchPolicy((ip_network(f"{IMAGE_HOST}/32"),))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Path:
    return authority.issue(f"DNS:{NAME}")


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is the address of the test's server."""

    def getaddrinfo(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (IMAGE_HOST, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_images_and_webhooks_are_exchanged_with_hosts_of_a_private_authority(authority: Authority, pair: Path) -> None:
    hosts: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        hosts.append(handler.headers["Host"])
        body(b"image")(handler)

    policy = POLICY._replace(ca_file=authority.file)
    with tls_server(pair, answer) as (port, asked):
        url = f"https://{NAME}:{port}/"
        assert fetch(url, 1000, policy) == b"image"
        assert post(url, b"{}", {}, policy).status == 200
    assert asked == [NAME] * 2
    assert hosts == [f"{NAME}:{port}"] * 2


@pytest.mark.parametrize(("name", "trusted"), [(NAME, False), ("other.example", True), (IMAGE_HOST, True)])
def test_a_certificate_that_is_not_trusted_is_called_so(
    authority: Authority, pair: Path, name: str, trusted: bool
) -> None:
    policy = POLICY._replace(ca_file=authority.file if trusted else None)
    with tls_server(pair, body(b"image")) as (port, _):
        with pytest.raises(UrlUnreachable, match=f"TLS certificate of {name} is not trusted") as caught:
            fetch(f"https://{name}:{port}/", 1000, policy)
        with pytest.raises(UrlUnreachable, match="webhook_url: the TLS certificate"):
            post(f"https://{name}:{port}/", b"{}", {}, policy)
    assert not caught.value.retryable


def test_the_usual_authorities_are_trusted_too(authority: Authority) -> None:
    usual, more = (_tls(file).get_ca_certs() for file in (None, authority.file))
    assert len(more) == len(usual) + 1 > 50


def test_the_setting_names_a_file_that_is_missing_or_contains_no_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    assert Settings.from_environment({"UPRES_CA_FILE": str(authority.file)}).ca_file == authority.file
    (tmp_path / "text.pem").write_text("no certificate")
    for name, says in (("none.pem", "cannot be read: No such file"), ("text.pem", "no certificate in PEM format")):
        with pytest.raises(SettingsError, match=rf"^UPRES_CA_FILE: .*{name}.*{says}"):
            Settings.from_environment({"UPRES_CA_FILE": str(tmp_path / name)})
    with pytest.raises(SettingsError, match=r"UPRES_CA_FILE: .*Is a directory"):
        Settings.from_environment({"UPRES_CA_FILE": str(tmp_path)})
