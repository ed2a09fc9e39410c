"""The function behind nginx, with the lines of docs/operations.md and with nginx's defaults."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from tests.support.images import encoded
from tests.support.paths import ROOT
from tests.support.servers import function
from upres.client import Client
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

DOCUMENTED = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)[0]
DEFAULTS = "proxy_pass http://127.0.0.1:8000;"
CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
{user}
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream upres {{ server {target}; keepalive 1; }}
  server {{ listen 127.0.0.1:{port}; location / {{ {lines} }} }}
}}
"""


@contextmanager
def nginx(url: str, folder: Path, lines: str) -> Iterator[str]:
    """Run nginx before a server during the block, with one connection kept to it; yields nginx's URL."""
    program, port = shutil.which("nginx"), free_port()
    assert program, "nginx is missing; `make test-all` installs it"
    lines = re.sub(r"proxy_pass [^;]*;", "proxy_pass http://upres;", lines)
    user = "user root;" if os.geteuid() == 0 else ""  # its temporary files are in a folder of this user
    given = {"folder": folder, "user": user, "target": url.removeprefix("http://"), "port": port, "lines": lines}
    (folder / "nginx.conf").write_text(CONFIGURATION.format(**given))
    with Child("nginx", [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)], {}, folder) as child:
        child.wait_ready(lambda: accepts(port))
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def behind(local: Local, tmp_path: Path) -> Iterator[str]:
    """The URL of a function behind nginx with the documented lines."""
    for url in function(local, tmp_path, UPRES_ACCESS="open"):
        with nginx(url, tmp_path, DOCUMENTED) as address:
            yield address


@pytest.fixture
def large() -> bytes:
    """A PNG file of more than 1 MB that is small in pixels: noise."""
    pixels = np.random.default_rng(1).integers(0, 256, (650, 600, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def test_a_job_and_its_events_pass_through_nginx(behind: str, png: bytes) -> None:
    with Client(behind) as client:
        types = [event.type for event in client.events(client.submit(png, 2).job_id)]
    assert (types[0], types[-1]) == ("queued", "succeeded")


def test_head_of_an_event_stream_does_not_keep_nginx_from_the_next_request(
    behind: str, local: Local, png: bytes
) -> None:
    """nginx sends both requests on one connection to the function."""
    local.stop("worker")
    try:
        with Client(behind) as client:
            job_id = client.submit(png, 2).job_id
            head = requests.head(f"{behind}/v1/jobs/{job_id}/events", timeout=5)
            assert (head.status_code, head.headers["Content-Type"].partition(";")[0]) == (200, "text/event-stream")
            assert requests.get(f"{behind}/healthz", timeout=5).ok
            client.cancel(job_id)
    finally:
        local.start("worker")


def test_an_answer_before_the_end_of_a_body_reaches_the_client_through_nginx(behind: str) -> None:
    for _ in range(5):
        answer = requests.post(f"{behind}/v1/estimate", data=b"x" * 7_000_000, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_an_image_over_1_mb_is_uploaded_behind_nginx_with_its_defaults(
    local: Local, tmp_path: Path, large: bytes
) -> None:
    assert len(large) > 1_000_000
    for url in function(local, tmp_path, UPRES_ACCESS="open", UPRES_MAX_INPUT_MEGABYTES="20"):
        with nginx(url, tmp_path, DEFAULTS) as address, Client(address) as client:
            job = client.submit(large, 2)
            assert client.cancel(job.job_id).status in ("cancelled", "succeeded")


def test_nginx_with_its_defaults_is_refused_without_an_access_setting(local: Local, tmp_path: Path) -> None:
    for url in function(local, tmp_path):
        with nginx(url, tmp_path, DEFAULTS) as address:
            answer = requests.get(f"{address}/v1/models", timeout=5)
            assert (answer.status_code, answer.json()["code"]) == (403, "access_undecided")
            assert "UPRES_ACCESS" in answer.json()["detail"]
