"""Results of upres among the photos of a command: they are known, and not enlarged again unless only they are named."""

import json
from pathlib import Path

import pytest

from tests.support.in_process import upres
from upres.client.known_results import KnownResults
from upres.client.ledger import NAME, Ledger

LEFT_OUT = "Results of upres among the photos, left out:"


@pytest.fixture(autouse=True)
def _two_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("a.png", "b.png")


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(f"photo {name}".encode())


def every() -> list[str]:
    """What a shell makes of *.png."""
    return sorted(map(str, Path().glob("*.png")))


def images(folder: str = ".") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.png"))


@pytest.mark.parametrize("out", [[], ["--out", "."], ["--out", "big"]], ids=" ".join)
def test_the_same_pattern_of_the_shell_can_be_given_again_and_again(out: list[str]) -> None:
    big = "big/" * ("big" in out)
    for factor, status, left_out in ((2, "enlarged", 0), (2, "skipped", 2), (4, "enlarged", 2), (4, "skipped", 4)):
        done = upres(*every(), "--factor", factor, *out)
        assert done.exit_code == 0, done.output
        assert sorted(done.stdout.splitlines()) == [f"{big}a_x{factor}.png", f"{big}b_x{factor}.png"]
        assert f"2 {status}" in done.stderr
        assert (f"{LEFT_OUT} {left_out}." in done.stderr) == (not big and left_out > 0)
    assert images() == sorted(["a.png", "b.png", *(f"{big}{name}_x{n}.png" for name in "ab" for n in (2, 4))])


def test_another_model_or_format_makes_other_results_of_the_photos_only() -> None:
    upres(*every(), "--name", "{stem} by one", "--model", "one")
    upres(*every(), "--name", "{stem} by {model}", "--model", "two")
    upres(*every(), "--name", "{stem}_{n}", "--force")
    assert [name for name in images() if name.startswith("a")] == ["a by one.png", "a by two.png", "a.png", "a_1.png"]
    assert len(images()) == 8


def test_a_result_that_is_named_alone_is_enlarged() -> None:
    upres("a.png")
    assert upres("a_x4.png").stdout.splitlines() == ["a_x4_x4.png"]
    forced = upres(*every(), "--force")
    assert sorted(forced.stdout.splitlines()) == ["a_x4.png", "b_x4.png"]
    assert f"{LEFT_OUT} 2." in forced.stderr


def test_results_in_a_list_and_in_a_folder_are_left_out_and_counted() -> None:
    upres("a.png", "b.png")
    listed = upres("-", "--out", "big", input="a_x4.png\nb_x4.png\n")
    assert f"{LEFT_OUT} 2." in listed.stderr
    assert "0 enlarged" in listed.stderr
    assert f"{LEFT_OUT} 2." in upres(".", "--out", "big").stderr
    assert images("big") == ["a_x4.png", "b_x4.png"]


def test_a_photo_that_has_the_name_of_a_result_is_a_photo() -> None:
    make("c_x4.png")
    for _ in range(2):
        assert sorted(upres(*every()).stdout.splitlines()) == ["a_x4.png", "b_x4.png", "c_x4_x4.png"]
    make("c.png")
    taken = upres(*every())
    assert taken.exit_code == 1
    assert "c.png: c_x4.png exists already" in taken.stderr
    assert Path("c_x4.png").read_bytes() == b"photo c_x4.png"


def test_results_of_other_commands_are_known_in_the_folders_above_and_below() -> None:
    make("deep/c.png")
    Path("link").symlink_to("deep")
    upres("a.png", "--out", "link")
    upres(".", "--out", "big")
    assert images("big") == ["a_x4.png", "b_x4.png", "deep/c_x4.png"]
    named = upres(*every(), "deep/a_x4.png", "big/a_x4.png", "big/deep/c_x4.png", "--out", "all")
    assert sorted(named.stdout.splitlines()) == ["all/a_x4.png", "all/b_x4.png"]
    assert f"{LEFT_OUT} 3." in named.stderr
    upres(".", "--out", "more")
    assert images("more") == ["a_x4.png", "b_x4.png", "deep/c_x4.png"]


def test_a_result_that_its_user_has_changed_is_kept_and_is_a_photo() -> None:
    upres("a.png")
    Path("a_x4.png").write_bytes(b"edited")
    done = upres(*every(), "--json")
    assert done.exit_code == 1
    records = {record["source"]: record for record in map(json.loads, done.stdout.splitlines()) if "source" in record}
    assert records["a_x4.png"]["output"] == "a_x4_x4.png"
    assert "a_x4.png was changed since upres made it" in records["a.png"]["error"]["message"]
    assert Path("a_x4.png").read_bytes() == b"edited"
    assert upres("a.png", "--force").exit_code == 0
    assert Path("a_x4.png").read_bytes() == b"enlarged photo a.png"


def test_a_result_that_was_moved_is_a_photo_and_is_made_again() -> None:
    upres("a.png")
    Path("a_x4.png").rename("mine.png")
    assert sorted(upres(*every()).stdout.splitlines()) == ["a_x4.png", "b_x4.png", "mine_x4.png"]


def test_a_result_that_another_command_is_just_writing_is_known() -> None:
    Path("big").mkdir()
    with Ledger(Path("big")) as running:
        running.record(("/photo", 1, 1), "x", Path("big/c_x4.png"), None)
        make("big/c_x4.png")
        with KnownResults() as known:
            assert known.made("big/c_x4.png")
            assert not known.made("a.png")


@pytest.mark.parametrize("kind", ["text", "folder", "another table", "empty"])
def test_without_a_usable_ledger_a_photo_is_enlarged_and_the_command_says_so(kind: str) -> None:
    if kind == "folder":
        Path(NAME).mkdir()
    else:
        Path(NAME).write_bytes(b"no database " * 100 if kind == "text" else b"")
    if kind == "another table":
        with Ledger(Path()) as other:
            other._database.executescript("DROP TABLE results; CREATE TABLE results (a)")
    done = upres("a.png", "b.png")
    assert sorted(done.stdout.splitlines()) == ["a_x4.png", "b_x4.png"], done.output
    assert (f"{NAME} cannot be used" in done.stderr) == (kind != "empty")
    strict = upres("a.png", "b.png", "--out", ".")
    assert (strict.exit_code == 1) == (kind != "empty")


def test_looking_for_results_leaves_nothing_behind(tmp_path: Path) -> None:
    upres("a.png")
    make("deep/c.png")
    with KnownResults() as known:
        names = (*every(), "deep/c.png", "https://example.org/a_x4.png", "-")
        assert [name for name in names if known.made(name)] == ["a_x4.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a_x4.png", "b.png", "deep", NAME}
