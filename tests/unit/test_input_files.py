"""Files of a folder: which are images, which cannot be enlarged and are named, and what is no file with content."""

import json
import os
import re
import socket
from pathlib import Path

import pytest

from tests.support.in_process import upres
from upres.client import Client, input_files
from upres.core.errors import NotAnImage

IMAGES = [
    "a.jfif", "b.jpe", "c.heic", "c2.HEIF", "d.avif", "e.jxl", "f.jp2", "f2.j2k", "f3.jpf", "f4.JPX", "g.tif",
    "g2.TIFF", "h.JPG", "i.jpeg", "j.png", "k.webp", "l.bmp", "m.dib", "n.gif", "o.apng",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"photo " + os.fsencode(name))


def messages(stdout: str) -> dict[str, str]:
    """Source → error message, from the lines of `--json`."""
    records = map(json.loads, stdout.splitlines())
    return {Path(record["source"]).name: record["error"]["message"] for record in records if "error" in record}


def test_every_image_of_a_folder_is_enlarged() -> None:
    make(*(f"in/{name}" for name in IMAGES), "in/notes.txt", "in/Thumbs.db", "in/clip.mp4", "in/png")
    done = upres("in", "--out", "big", "--json")
    assert done.exit_code == 0, done.stdout
    assert sorted(Path(json.loads(line)["source"]).name for line in done.stdout.splitlines()[:-1]) == sorted(IMAGES)


def test_an_image_that_cannot_be_enlarged_is_named_and_the_exit_code_is_1() -> None:
    make("in/a.jfif", "in/deep/b.CR2", "in/c.psd", "in/d.svg", "in/e.txt")
    done = upres("in", "--out", "big", "--json")
    assert done.exit_code == 1
    told = messages(done.stdout)
    assert {name: re.findall(r"skipped, because it is (.*);", text) for name, text in told.items()} == {
        "b.CR2": ["a camera's raw file"], "c.psd": ["a Photoshop file"], "d.svg": ["a drawing without pixels"]
    }  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1])["summary"]["enlarged"] == 1
    spoken = upres("in", "--out", "big")
    assert "deep/b.CR2: skipped, because it is a camera's raw file; upres enlarges PNG, JPEG" in spoken.stderr
    assert upres("in/c.psd", "--out", "big").exit_code == 0  # named directly: who enlarges it decides by its content


def test_no_suffix_is_both_supported_and_not() -> None:
    assert not input_files.SUFFIXES.keys() & input_files.UNSUPPORTED.keys()
    for name in (*input_files.SUFFIXES, *input_files.UNSUPPORTED):
        assert re.fullmatch(r"\.[a-z0-9]+", name)


def test_the_page_offers_the_same_files() -> None:
    page = (Path(input_files.__file__).parent / "web" / "index.html").read_text()
    [offered] = re.findall(r'type="file"[^>]* accept="([^"]*)"', page)
    assert {one for one in offered.split(",") if one.startswith(".")} == input_files.SUFFIXES.keys()


@pytest.mark.parametrize("named", [["in"], ["in/*"], ["in/pipe.png", "in/socket.png", "in/empty.png", "in/link.png"]])
def test_what_is_no_file_with_content_is_told_before_anything_is_done(named: list[str]) -> None:
    Path("in").mkdir()
    os.mkfifo("in/pipe.png")
    Path("in/empty.png").touch()
    Path("in/link.png").symlink_to("gone.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("in/socket.png")
        done = upres(*named, "--out", "big", "--json")
    assert done.exit_code == 1
    told = messages(done.stdout)
    assert told["empty.png"] == "The file is empty. (not_an_image)"
    assert told["pipe.png"].startswith("It is a pipe; save its content to a file")
    assert told["socket.png"].startswith("It is a socket; ")
    assert told["link.png"] == "It is a link to gone.png, which does not exist"
    assert len(told) == 4
    assert not list(Path("big").glob("*.png"))


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_told() -> None:
    make("a.png")
    Path("a.png").chmod(0)
    assert messages(upres("a.png", "--json").stdout) == {"a.png": "Permission denied"}


def test_the_python_client_sends_no_empty_image(http_nowhere: str) -> None:
    Path("a.png").touch()
    with Client(http_nowhere) as client:
        with pytest.raises(NotAnImage, match=r"The file a\.png is empty"):
            client.submit("a.png", 2)
        with pytest.raises(NotAnImage, match="The image is empty"):
            client.submit(b"", 2)


@pytest.fixture
def http_nowhere() -> str:
    """An address at which nothing listens: a request would fail with another error."""
    return "http://127.0.0.1:9"


@pytest.mark.parametrize("letter", ["x", "é", "語", "🖼", os.fsdecode(b"\xe9")], ids=ascii)
@pytest.mark.parametrize("size", range(249, 256))
def test_names_as_long_as_the_file_system_allows_have_results(letter: str, size: int) -> None:
    letters = letter * ((size - len("1.png")) // len(os.fsencode(letter)))
    filled = letters + "-" * (size - len("1.png") - len(os.fsencode(letters)))
    names = [f"{filled}1.png", f"{filled}2.png"]
    assert len(os.fsencode(names[0])) == size
    make(*names)
    for status in ("enlarged", "skipped"):
        done = upres(*names, "--json")
        assert f'"{status}": 2' in done.stdout, ascii(done.output)
    results = [name for name in os.listdir() if name.endswith("_x4.png")]
    assert len(results) == 2
    for result in results:
        assert 240 < len(os.fsencode(result)) <= 255
        assert size + 3 <= 255 or "~" in result
        assert result.startswith(letters[:50])
    assert {Path(result).read_bytes() for result in results} == {
        b"enlarged photo " + os.fsencode(name) for name in names
    }


def test_a_file_system_with_shorter_names_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encrypted folders (eCryptfs) have 143 bytes for a name; FAT states more than it has."""
    for stated, most in (143, 143), (1530, 255):
        monkeypatch.setattr(os, "pathconf", lambda folder, name, stated=stated: stated)
        names = ["c" * (most - 5) + f"{end}.png" for end in "12"]
        make(*names)
        made = [Path(line).name for line in upres(*names, "--out", f"up to {most}").stdout.splitlines()]
        assert sorted(len(name) for name in made) == [most, most]
        assert len(set(made)) == 2


def test_a_pattern_that_makes_too_long_names_is_told() -> None:
    make("a.png")
    done = upres("a.png", "--name", "{stem}" + "y" * 260)
    assert done.exit_code == 1
    assert "name would have more than 255 bytes; give a shorter --name. (name_too_long)" in done.stderr
    make("b" * 250 + ".png")
    assert upres("b" * 250 + ".png", "--name", "{stem} and {stem}").exit_code == 0
    assert [name for name in os.listdir() if " and " in name and len(name) <= 255]
