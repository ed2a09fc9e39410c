"""Names on the command line: which images they stand for, each once, and in which folder its result lies."""

import io
import os
from pathlib import Path

import pytest

from upres.client.sources import expand


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"image")


def found(*arguments: str, lines: str = "") -> list[str]:
    """The images that the arguments stand for, each with its folder in the output folder."""
    sources = expand(arguments, io.StringIO(lines), os.path.realpath("out"))
    return [f"{source.image} in {source.below}" for source in sources]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["g", "g/**/*.png", "g/**", "g/*/../**/*.png"])
def test_links_that_lead_upwards_yield_each_image_once(name: str) -> None:
    make("g/a.png", "g/deep/b.png")
    for link in ("g/up", "g/deep/up", "g/deep/again"):
        Path(link).symlink_to(Path("g").absolute())
    images = [Path(one.partition(" in ")[0]).name for one in found(name)]
    assert sorted(images) == ["a.png", "b.png"]


def test_a_linked_folder_is_searched_and_the_real_name_is_preferred() -> None:
    make("elsewhere/c.png", "g/real/a.png")
    Path("g/linked").symlink_to(Path("elsewhere").absolute())
    Path("g/another").symlink_to(Path("g/real").absolute())
    both = ["g/linked/c.png in linked", "g/real/a.png in real"]
    assert sorted(found("g")) == sorted(found("g/**/*.png")) == both


def test_a_pattern_finds_what_the_shell_would_find() -> None:
    make("g/a.png", "g/b.jpg", "g/x/a.png", "g/x/y/a.png", "g/.hidden/a.png", "g/.h.png")
    assert found("g/*.png") == ["g/a.png in ."]
    assert found("g/*/a.png") == ["g/x/a.png in x"]
    assert found("g/**/y/*.png") == ["g/x/y/a.png in x/y"]
    assert sorted(found("g/**")) == [
        "g/a.png in .", "g/b.jpg in .", "g/x/a.png in x", "g/x/y/a.png in x/y"
    ]  # fmt: skip
    assert found("g/.h*") == ["g/.h.png in ."]
    assert found("g/*/**/*.png") == ["g/x/a.png in x", "g/x/y/a.png in x/y"]
    assert found("g/a**.png") == ["g/a.png in ."]
    assert found(f"{Path.cwd()}/g/*.jpg") == [f"{Path.cwd()}/g/b.jpg in ."]
    assert found("g/*.tif") == ["g/*.tif in ."]  # opening it fails, with the pattern in the message


def test_named_files_keep_their_folders_below_the_common_one() -> None:
    make("a/1.png", "b/1.png", "b/c/1.png")
    assert found("a/1.png", "b/1.png", "b/c/1.png") == ["a/1.png in a", "b/1.png in b", "b/c/1.png in b/c"]
    assert found("b/1.png", "b/c/1.png") == ["b/1.png in .", "b/c/1.png in c"]
    assert found("a/1.png") == ["a/1.png in ."]
    assert found("a/1.png", "https://example.org/b/1.png") == ["a/1.png in .", "https://example.org/b/1.png in ."]


def test_listed_files_keep_their_folders_below_the_current_one() -> None:
    make("a/1.png", "b/1.png")
    here = Path.cwd()
    assert found("-", lines=f"./a/1.png\n{here}/b/1.png\n") == ["./a/1.png in a", f"{here}/b/1.png in b"]
    Path("a").rename(here.parent / "elsewhere")
    away = here.parent / "elsewhere"
    assert found("-", lines="../elsewhere/1.png\n") == [f"../elsewhere/1.png in {away.relative_to('/')}"]
