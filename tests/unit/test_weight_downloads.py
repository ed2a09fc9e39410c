"""Downloads of published weights from a real server, and its faults; what arrives is the named file or an error."""

import errno
import resource
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.support.foreign import STRANGERS, Foreign
from tests.support.servers import IMAGE_HOST, Answer, body, http_server
from tests.support.tls import Authority, tls_server
from upres.client.errors import ClientSetupError
from upres.core import registry
from upres.core.errors import ModelError, UpresError, UrlAnsweredError, UrlUnreachable
from upres.models import download
from upres.models.download import File

DATA = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01))


def fetched(url: str, folder: Path, on_bytes: Callable[[int], None] = lambda count: None) -> bytes:
    file = File(f"{url}/weights.pth", len(DATA), registry.digest(DATA))
    download.download(file, folder / "weights.pth", None, on_bytes)
    return (folder / "weights.pth").read_bytes()


def in_turn(*answers: Answer) -> Answer:
    """Each request gets the next of these answers, and all later ones the last."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def broken_off(handler: BaseHTTPRequestHandler) -> None:
    body(DATA[:100_000], headers={"Content-Length": str(len(DATA))})(handler)
    handler.close_connection = True


def rest(handler: BaseHTTPRequestHandler) -> None:
    at = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    body(DATA[at:], 206, {"Content-Range": f"bytes {at}-{len(DATA) - 1}/{len(DATA)}"})(handler)


def test_a_file_arrives_over_redirects_and_its_bytes_are_counted(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_moved = handler.path == "/moved"
        body(DATA)(handler) if is_moved else body(b"", 302, {"Location": "/moved"})(handler)

    counts: list[int] = []
    with http_server(answer) as url:
        assert fetched(url, tmp_path, counts.append) == DATA
    assert counts == sorted(counts)
    assert counts[-1] == len(DATA)


OTHER = {"Content-Range": "bytes 9-9/10"}


@pytest.mark.parametrize(
    "then",
    [rest, body(DATA), in_turn(body(b"", 416), body(DATA)), in_turn(body(b"x", 206, OTHER), body(DATA))],
    ids=["rest", "whole", "refused range", "wrong range"],
)
def test_a_broken_connection_is_continued(tmp_path: Path, then: Answer) -> None:
    with http_server(in_turn(broken_off, then)) as url:
        assert fetched(url, tmp_path) == DATA


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    with http_server(in_turn(body(b"busy", 503), body(b"busy", 429), body(DATA))) as url:
        assert fetched(url, tmp_path) == DATA


PAGE = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (body(b"", 404), UrlAnsweredError, "is not there any more \\(404 Not Found\\)"),
        (body(b"", 403), UrlAnsweredError, "answers 403 Forbidden, not with the file"),
        (body(b"<html>", headers=PAGE), UrlAnsweredError, "a web page"),
        (body(b"busy", 503), UrlUnreachable, "answers 503"),
        (body(DATA[1:]), ModelError, "not the one that the gallery names: it has 255999 bytes"),
        (body(DATA[::-1]), ModelError, "not the one that the gallery names: its SHA-256 is"),
        (body(b"", 302, {"Location": "/again"}), UrlUnreachable, "cannot be asked: .*redirects"),
        (broken_off, UrlUnreachable, "does not answer"),
    ],
)
def test_other_answers_are_named(tmp_path: Path, answer: Answer, kind: type[UpresError], says: str) -> None:
    with http_server(answer) as url, pytest.raises(kind, match=says) as caught:
        fetched(url, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_endless_answer_is_cut_off(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(DATA)

    with http_server(answer) as url, pytest.raises(ModelError, match="more than 256000 bytes"):
        fetched(url, tmp_path)
    assert (tmp_path / "weights.pth").stat().st_size <= len(DATA)


def test_a_download_ends_after_its_longest_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LONGEST_SECONDS", -1)
    with http_server(body(DATA)) as url, pytest.raises(UrlUnreachable, match="is too slow"):
        fetched(url, tmp_path)


@pytest.mark.parametrize("name", STRANGERS)
def test_a_server_that_is_another_program_is_an_error(tmp_path: Path, name: str) -> None:
    with Foreign() as server:
        server.answer = STRANGERS[name]
        with pytest.raises((UrlUnreachable, UrlAnsweredError, ModelError)) as caught:
            fetched(server.url, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(UrlUnreachable, match=r"does not answer.*refused"):
            fetched(f"http://127.0.0.1:{closed.getsockname()[1]}", tmp_path)

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UrlUnreachable, match=r"^nowhere.example does not exist: the host name"):
        fetched("http://nowhere.example", tmp_path)


def test_a_proxy_of_the_environment_is_used_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        paths.append(handler.path)
        body(DATA)(handler)

    with http_server(answer) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        assert fetched("http://weights.example", tmp_path) == DATA
    assert paths == ["http://weights.example/weights.pth"]
    with pytest.raises(UrlUnreachable, match="through the proxy in http_proxy"):
        fetched("http://weights.example", tmp_path)
    monkeypatch.setenv("http_proxy", "nonsense://x")
    with pytest.raises(ClientSetupError, match="proxy"):
        fetched("http://weights.example", tmp_path)


def test_the_authorities_of_ca_file_are_trusted_and_others_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tls_server(authority.issue(f"IP:{IMAGE_HOST}"), body(DATA)) as (port, _):
        file = File(f"https://{IMAGE_HOST}:{port}/weights.pth", len(DATA), registry.digest(DATA))
        download.download(file, tmp_path / "weights.pth", authority.file, lambda count: None)
        assert (tmp_path / "weights.pth").read_bytes() == DATA
        with pytest.raises(UrlUnreachable, match=r"not trusted .*; name its authority in UPRES_CA_FILE"):
            download.download(file, tmp_path / "weights.pth", None, lambda count: None)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """The kernel refuses to write more than 100,000 bytes into a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, full_disk: None) -> None:
    with http_server(body(DATA)) as url, pytest.raises(OSError, match="too large") as caught:
        fetched(url, tmp_path)
    assert caught.value.errno == errno.EFBIG
