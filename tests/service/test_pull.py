"""`upres models pull` of a published model: licence, download, import and registry; after a failure nothing is left."""

import os
import pty
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.support import galleries
from tests.support.checkpoints import ABOUT
from tests.support.servers import body, http_server
from upres.core import registry
from upres.core.errors import ModelError
from upres.embedded.stack import Local
from upres.models import checkpoint_files, community, gallery, publishing
from upres.models.gallery import Published


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return galleries.checkpoint(tmp_path / "author")


@pytest.fixture
def url(data: bytes) -> Iterator[str]:
    with http_server(body(data)) as served:
        yield served


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder in which the command runs, with its temporary files in `temporary`."""
    (tmp_path / "place/temporary").mkdir(parents=True)
    return tmp_path / "place"


def environment(place: Path, **more: str) -> dict[str, str]:
    return {"TMPDIR": str(place / "temporary"), **more}


def left_in(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path != place / "temporary"]


def test_a_published_model_is_in_the_registry_as_if_it_was_imported(
    local: Local, tmp_path: Path, place: Path, data: bytes, url: str
) -> None:
    facts = galleries.published(data, url)
    file = galleries.write(tmp_path / "gallery.toml", tiny=facts)
    done = galleries.run(file, "pull", "tiny", environment=environment(place, **local.environment), cwd=place)
    assert (done.returncode, done.stdout) == (0, "tiny 1 is in the registry\n"), done.stderr
    assert done.stderr.startswith("tiny: 0.0 MB, licence MIT, by Nobody, https://example.org\n")
    assert "tiny: compact, factor 2, receptive radius 3 pixels, halo" in done.stderr
    manifest, _ = registry.manifest(local.store, "tiny", "1")
    assert (manifest.licence, manifest.description) == ("MIT", "A test.")
    assert all(fact in manifest.origin for fact in ("Nobody", facts["home"], facts["address"], facts["sha256"]))
    imported = community.convert(tmp_path / "author/compact.pth", tmp_path / "imported", {**ABOUT, "name": "tiny"})
    assert (manifest.networks, manifest.golden) == (imported.manifest.networks, imported.manifest.golden)
    assert left_in(place) == []
    again = galleries.run(file, "pull", "tiny", environment=environment(place, **local.environment), cwd=place)
    assert (again.returncode, again.stdout, again.stderr) == (0, "tiny is in the registry\n", "")


def test_an_unknown_name_leads_to_the_gallery(local: Local, tmp_path: Path, place: Path) -> None:
    file = galleries.write(tmp_path / "gallery.toml")
    done = galleries.run(file, "pull", "tiny2", environment=environment(place, **local.environment), cwd=place)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "There is no model 'tiny2'" in done.stderr
    assert "`upres models gallery`" in done.stderr


@pytest.fixture
def restricted(tmp_path: Path, data: bytes, url: str) -> Path:
    facts = galleries.published(data, url, licence="CC-BY-NC-SA-4.0")
    return galleries.write(tmp_path / "gallery.toml", tiny=facts)


OUT = ("pull", "tiny", "--out", "out")


def test_a_licence_without_commercial_use_is_refused_where_nobody_can_be_asked(restricted: Path, place: Path) -> None:
    done = galleries.run(restricted, *OUT, environment=environment(place), cwd=place)
    assert done.returncode == 1
    assert "licence CC-BY-NC-SA-4.0" in done.stderr
    assert "forbids commercial use; give --accept-licence if you accept it." in done.stderr.splitlines()[-1]
    assert left_in(place) == []
    done = galleries.run(restricted, *OUT, "--accept-licence", environment=environment(place), cwd=place)
    assert (done.returncode, done.stdout) == (0, "tiny 1 is in out\n"), done.stderr
    assert registry.read_folder(place / "out")[0].licence == "CC-BY-NC-SA-4.0"


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_somebody_at_a_terminal_is_asked(restricted: Path, place: Path, answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    process = galleries.start(restricted, *OUT, environment=environment(place), cwd=place, stdin=theirs)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    _, err = process.communicate(timeout=100)
    os.close(ours)
    assert process.returncode == code, err
    assert "CC-BY-NC-SA-4.0 forbids commercial use. Do you accept it?" in err
    assert (place / "out/manifest.json").exists() == (code == 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_leaves_nothing(tmp_path: Path, place: Path, data: bytes, number: int) -> None:
    is_sent, may_end = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body(data[:100], headers={"Content-Length": str(len(data))})(handler)
        handler.wfile.flush()
        is_sent.set()
        may_end.wait(60)

    with http_server(answer) as url:
        file = galleries.write(tmp_path / "gallery.toml", tiny=galleries.published(data, url))
        process = galleries.start(file, *OUT, environment=environment(place), cwd=place)
        assert is_sent.wait(60)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        may_end.set()
    assert (process.returncode, out) == (-number, "")
    assert "Traceback" not in err
    assert left_in(place) == []


def made(data: bytes, url: str, to: Path, **changed: Any) -> None:
    facts = galleries.published(data, url, **changed)
    publishing.make(Published.model_validate({**facts, "name": "tiny"}), to, None)


@pytest.mark.parametrize("exists", [False, True])
def test_another_file_is_refused_before_it_is_read_and_nothing_is_left(
    tmp_path: Path, place: Path, data: bytes, url: str, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(place / "temporary"))
    monkeypatch.setattr(checkpoint_files, "read", lambda file: pytest.fail("the file was read"))
    if exists:
        (place / "out").mkdir()
    with pytest.raises(ModelError, match="not the one that the gallery names"):
        made(data, url, place / "out", sha256="0" * 64)
    assert left_in(place) == ([place / "out"] if exists else [])


def test_an_empty_folder_gets_the_version(place: Path, data: bytes, url: str) -> None:
    (place / "out").mkdir()
    made(data, url, place / "out")
    assert registry.read_folder(place / "out")[0].name == "tiny"
    assert {path.name for path in place.iterdir()} == {"out", "temporary"}


@pytest.mark.parametrize("most", [1000, 15_000], ids=["download", "conversion"])
def test_a_full_disk_is_named_and_nothing_is_left(
    place: Path, data: bytes, url: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses to write more than `most` bytes into a file."""
    assert 1000 < len(data) < 15_000
    monkeypatch.setattr("tempfile.tempdir", str(place / "temporary"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(ModelError, match=r"The model cannot be written to .*: File too large"):
            made(data, url, place / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left_in(place) == []


def test_without_spandrel_nothing_is_downloaded_and_the_extra_is_named(
    place: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModelError, match=r'tiny needs spandrel: pip install "upres\[community\]"'):
        made(data, "http://127.0.0.1:9", place / "out", architecture="SPAN")
    assert left_in(place) == []


def test_models_of_the_package_need_no_address(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from upres.models import realesrgan

    def pulled(name: str, to: Path) -> None:
        to.mkdir()
        (to / name).touch()

    monkeypatch.setattr(realesrgan, "pull", pulled)
    publishing.make(gallery.models()["realesr-animevideov3"], place / "out", None)
    assert [path.name for path in (place / "out").iterdir()] == ["realesr-animevideov3"]
