"""Access to the function when UPRES_ACCESS is not set: only this machine, and no web page of another site."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from psutil import net_if_addrs

from tests.support.servers import function, post_job
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_function_without_access_setting_refuses_to_listen_on_other_hosts(local: Local, host: str) -> None:
    command = [sys.executable, "-m", "upres.function", "--host", host, "--port", str(free_port())]
    done = subprocess.run(command, env={**os.environ, **local.environment}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "UPRES_ACCESS" in done.stderr
    assert "Traceback" not in done.stderr


def test_function_without_access_setting_refuses_pages_of_other_sites(local: Local, tmp_path: Path) -> None:
    """It refuses foreign Origin headers, foreign Host headers (DNS rebinding) and requests that a proxy forwarded.

    It accepts pages of this machine and the origins that UPRES_CORS_ORIGINS names; its "*" has no effect here.
    """
    for url in function(local, tmp_path, UPRES_CORS_ORIGINS="*,https://mine.example"):
        port = url.rpartition(":")[2]
        for refused in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://localhost.evil.example"},
            {"Origin": "http://[::1"},
            {"Host": f"rebound.example:{port}"},
            {"Host": f"127.0.0.1.evil.example:{port}", "Origin": url},
            {"Host": ""},
            {"X-Forwarded-For": "192.0.2.1"},
            {"X-Forwarded-Host": "upres.example"},
            {"X-Forwarded-Proto": "https"},
            {"X-Real-IP": "192.0.2.1"},
            {"Forwarded": "for=192.0.2.1"},
            {"Via": "1.1 proxy.example"},
        ):
            answer = post_job(url, None, **refused)
            assert (answer.status_code, answer.json()["code"]) == (403, "access_undecided"), refused
            assert requests.get(f"{url}/v1/jobs/{'0' * 32}", headers=refused, timeout=20).status_code == 403
        for fine in (
            {"Origin": url},
            {"Origin": "http://localhost:3000"},
            {"Host": f"localhost:{port}"},
            {"Host": f"[::1]:{port}"},
            {"Origin": "https://mine.example"},
        ):
            assert post_job(url, None, **fine).status_code == 202, fine


def test_function_without_access_setting_refuses_http_1_0(local: Local, tmp_path: Path) -> None:
    """nginx's default `proxy_pass` sends HTTP/1.0, with a Host header of its own, and says nothing about the client."""
    for url in function(local, tmp_path):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(
                f"GET /v1/models HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        assert received.startswith(b"HTTP/1.1 403 ")
        assert b"UPRES_ACCESS" in received
        assert requests.get(f"{url}/v1/models", timeout=10).status_code == 200
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert connection.recv(15).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("access", ["", "open"])
def test_function_without_access_setting_warns_of_proxies_in_its_log(local: Local, tmp_path: Path, access: str) -> None:
    for _ in function(local, tmp_path, UPRES_ACCESS=access):
        pass
    said = [line for line in (tmp_path / "function.log").read_text().splitlines() if "UPRES_ACCESS" in line]
    assert len(said) == (0 if access else 1)
    assert all("proxy" in line for line in said)


def test_function_without_access_setting_refuses_non_loopback_addresses(local: Local, tmp_path: Path) -> None:
    """Also if uvicorn runs the app directly, so that the check in `python -m upres.function` does not apply."""
    addresses = [one.address for all in net_if_addrs().values() for one in all if one.family == socket.AF_INET]
    host, port = next(one for one in addresses if not one.startswith("127.")), free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "upres.function.app:create_app", "--host", "0.0.0.0"]
    with Child("function", [*command, "--port", str(port)], local.environment, tmp_path) as child:
        child.wait_ready(lambda: accepts(port))
        answer = post_job(f"http://{host}:{port}", None)
        assert post_job(f"http://127.0.0.1:{port}", None).status_code == 202
    assert (answer.status_code, answer.json()["code"]) == (403, "access_undecided")
