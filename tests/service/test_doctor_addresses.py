"""`upres doctor` asks the function at the address that its answers name, and finds what clients would see there."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from tests.support.servers import Answer, body, function, http_server
from tests.support.tls import Authority, tls_server
from upres.console.doctor.finding import Finding
from upres.console.doctor.function_address import WHAT, check
from upres.embedded.child import free_port
from upres.embedded.stack import Local


def found(server: str, public: str = "") -> Finding | None:
    """The finding about the public address, if there is one."""
    return {finding.what: finding for finding in check(server, public)}.get(WHAT)


def ingress(behind: str, **headers: str) -> Answer:
    """A proxy that ends TLS, keeps Host, and adds headers with the names of these arguments (`_` is `-`)."""
    added = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = requests.get(behind + handler.path, headers={"Host": handler.headers["Host"], **added}, timeout=10)
        body(asked.content, asked.status_code)(handler)

    return answer


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


@pytest.fixture
def https(local: Local, authority: Authority, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an ingress before the function; `request.param` are headers that it adds."""
    with tls_server(
        authority.issue("DNS:localhost,IP:127.0.0.1"), ingress(local.url, **request.param), "127.0.0.1"
    ) as (port, _):
        yield f"https://localhost:{port}"


def test_an_address_that_is_the_same_for_all_is_fine(local: Local) -> None:
    assert all(finding.grade == "ok" for finding in check(local.url, ""))
    assert all(finding.grade == "ok" for finding in check(f"{local.url}/", local.url))


@pytest.mark.parametrize("https", [{}], indirect=True)
@pytest.mark.parametrize("known", ["asked", "set"])
def test_http_links_behind_https_are_a_fault(https: str, local: Local, known: str) -> None:
    """The ingress tells no protocol, or is not among the trusted proxies."""
    finding = found(https) if known == "asked" else found(local.url, https)
    assert finding
    assert (finding.grade, "API keys travel unencrypted" in finding.found) == ("fault", True)
    assert finding.fix == f"Set UPRES_PUBLIC_URL of the function to {https}."


@pytest.mark.parametrize("https", [{"X_Forwarded_Proto": "https"}], indirect=True)
def test_https_links_behind_a_trusted_proxy_are_fine(https: str, local: Local) -> None:
    for finding in (found(https), found(local.url, https)):
        assert finding
        assert finding.grade == "ok"


@pytest.mark.parametrize("https", [{}], indirect=True)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_function_tells_its_public_address_and_the_doctor_asks_there(
    https: str, host: str, local: Local, tmp_path: Path
) -> None:
    """The public address may have the host that the doctor asked, at another port."""
    public = https.replace("localhost", host)
    for url in function(local, tmp_path, UPRES_PUBLIC_URL=f"{public}/"):
        finding = found(url)  # behind the ingress is another function, without this setting
        assert finding
        assert (finding.grade, f"answers at {public} name http://{host}" in finding.found) == ("fault", True)


def test_a_certificate_that_clients_do_not_trust_is_a_fault(local: Local, authority: Authority) -> None:
    with tls_server(authority.issue("DNS:upres.example.org"), ingress(local.url), "127.0.0.1") as (port, _):
        finding = found(local.url, f"https://localhost:{port}")
    assert finding
    assert (finding.grade, "certificate" in finding.found) == ("fault", True)
    assert "SSL_CERT_FILE" in finding.fix


def test_another_host_in_answers_is_a_fault(local: Local) -> None:
    with http_server(ingress(local.url, Host="elsewhere.example.org"), "127.0.0.1") as url:
        finding = found(local.url, url)
    assert finding
    assert (finding.grade, "name another address, http://elsewhere.example.org" in finding.found) == ("fault", True)


def test_a_redirect_and_something_else_at_the_address_are_faults(local: Local) -> None:
    for answer in (body(b"", 301, {"Location": "https://upres.example.org/readyz"}), body(b"<html>", 404)):
        with http_server(answer, "127.0.0.1") as url:
            finding = found(local.url, url)
        assert finding
        assert finding.grade == "fault"
        assert ("redirects to https://upres" in finding.found) or ("something else" in finding.found)


def test_an_address_that_cannot_be_reached_from_here_is_a_warning(local: Local) -> None:
    finding = found(local.url, f"http://localhost:{free_port()}")
    assert finding
    assert (finding.grade, "where clients run" in finding.fix) == ("warning", True)


def test_a_function_of_an_earlier_release_tells_no_address() -> None:
    with http_server(body(b'{"status": "ok", "redis": "ok", "store": "ok"}'), "127.0.0.1") as url:
        assert [(finding.what, finding.grade) for finding in check(url, "")] == [("function", "ok")]


@pytest.mark.parametrize("host", ["[::1", "a b", "\xe9"])
def test_a_probe_with_a_damaged_host_is_answered(local: Local, host: str) -> None:
    assert requests.get(f"{local.url}/readyz", headers={"Host": host.encode("latin-1")}, timeout=10).status_code == 200
