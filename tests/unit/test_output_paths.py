"""Output paths: names, who owns them, what is never replaced, and errors of the disk that stop a batch."""

import errno
import io
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.test_batch import OPTIONS, RESULT, Fake, Log, files
from upres.client.atomic_file import MayReplace, atomic_write
from upres.client.batch import Batch, Callbacks
from upres.client.errors import OutputTaken, OutputUnwritable
from upres.client.ledger import Ledger
from upres.client.output_paths import NAME, Output, OutputPaths, check_folder, check_pattern
from upres.client.sources import Source, expand


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def enlarged(before: Callable[[Path], object] = lambda path: None) -> Output:
    """A result; `before` is called with its path just before the file gets its name."""

    def save(path: Path, may_replace: MayReplace) -> None:
        with atomic_write(path, may_replace) as file:
            file.write(b"enlarged")
            before(path)

    return Output(RESULT, save)


def save(paths: OutputPaths, source: Source, made: Output | None = None) -> Path:
    return paths.save(source, 1, paths.reserve(source, 1), made or enlarged())


def raising(error: Exception) -> Callable[..., None]:
    def call(*arguments: object) -> None:
        raise error

    return call


def paths_of(ledger: Ledger, out: Path, name: str = NAME, force: bool = False) -> OutputPaths:
    return OutputPaths(ledger, out, name, OPTIONS, force)


def test_a_result_that_is_missing_or_empty_is_made_again_and_a_changed_one_only_by_force(
    tmp_path: Path, out: Path
) -> None:
    [source] = files(tmp_path / "in", "a.png")
    with Ledger(out) as ledger:
        paths = paths_of(ledger, out)
        path = save(paths, source)
        assert paths.finished(source) == path
    for data in (b"", None, b"enlarge"):
        path.unlink() if data is None else path.write_bytes(data)
        with Ledger(out) as ledger:
            paths = paths_of(ledger, out)
            assert paths.finished(source) is None
            if data:
                with pytest.raises(OutputTaken, match="was changed since upres made it"):
                    save(paths, source)
                assert path.read_bytes() == data
                paths = paths_of(ledger, out, force=True)
            save(paths, source)
        assert path.read_bytes() == b"enlarged"


def test_a_foreign_file_that_appears_while_the_job_runs_is_kept(tmp_path: Path, out: Path) -> None:
    [source] = files(tmp_path / "in", "a.png")
    with Ledger(out) as ledger, pytest.raises(OutputTaken, match="written by another program in the meantime"):
        save(paths_of(ledger, out), source, enlarged(lambda path: path.write_bytes(b"foreign")))
    assert (out / "a_x4.png").read_bytes() == b"foreign"


def test_a_result_that_another_program_replaces_while_the_job_runs_is_kept(tmp_path: Path, out: Path) -> None:
    [source] = files(tmp_path / "in", "a.png")
    with Ledger(out) as ledger:
        save(paths_of(ledger, out), source)
    with Ledger(out) as ledger, pytest.raises(OutputTaken):
        save(paths_of(ledger, out), source, enlarged(lambda path: path.write_bytes(b"retouched")))
    assert (out / "a_x4.png").read_bytes() == b"retouched"


def test_a_photo_that_changes_while_its_job_runs_is_enlarged_again(tmp_path: Path, out: Path) -> None:
    class Changing(Fake):
        def enlarge(self, image: str, callbacks: Callbacks) -> Output:
            made = super().enlarge(image, callbacks)
            Path(image).write_bytes(b"another image")
            return made

    sources = files(tmp_path / "in", "a.png")
    for expected in ("enlarged", "enlarged", "skipped"):
        with Ledger(out) as ledger:
            batch = Batch(Changing() if not list(out.glob("*.png")) else Fake(), paths_of(ledger, out), Log())
            batch.run(sources, 1)
        assert batch.counts == {expected: 1}


def test_a_result_of_another_format_that_cannot_be_saved_holds_no_claim(tmp_path: Path, out: Path) -> None:
    one, two = [*files(tmp_path / "a", "1.tif"), *files(tmp_path / "b", "1.jpg")]
    with Ledger(out) as ledger:
        paths = OutputPaths(ledger, out, NAME, {**OPTIONS, "output_format": "auto"}, force=False)
        jpeg = Output(RESULT.model_copy(update={"format": "jpeg"}), raising(ValueError("broken off")))
        with pytest.raises(ValueError, match="broken off"):
            paths.save(one, 1, paths.reserve(one, 1), jpeg)
        assert paths.reserve(two, 2).path == out / "1_x4.jpg"
        assert not paths.reserve(two, 2).path.exists()


@pytest.mark.parametrize("force", [False, True])
def test_two_names_that_are_one_file_do_not_replace_each_other(tmp_path: Path, out: Path, force: bool) -> None:
    """On file systems that do not distinguish upper and lower case; here a link makes two names one file."""
    upper, lower = files(tmp_path / "in", "IMG_1.png", "img_1.png")
    (out / "img_1_x4.png").symlink_to("IMG_1_x4.png")
    with Ledger(out) as ledger:
        paths = paths_of(ledger, out, force=force)
        reserved = [paths.reserve(source, 1) for source in (upper, lower)]
        paths.save(upper, 1, reserved[0], enlarged())
        with pytest.raises(OutputTaken):
            paths.save(lower, 1, reserved[1], enlarged())


def test_another_command_sees_the_claims_of_a_running_one_and_not_those_of_an_ended_one(
    tmp_path: Path, out: Path
) -> None:
    one, two = [*files(tmp_path / "a", "1.png"), *files(tmp_path / "b", "1.png")]
    with Ledger(out) as first, Ledger(out) as second:
        paths_of(first, out).reserve(one, 1)
        with pytest.raises(OutputTaken, match=rf"the result of {one.image}; put {{parent}} into --name"):
            paths_of(second, out).reserve(two, 1)
    with Ledger(out) as third:
        assert not paths_of(third, out).reserve(two, 1).repeated
    assert not list(out.glob("*.lock"))


def test_a_failed_source_gives_its_path_to_the_next(tmp_path: Path, out: Path) -> None:
    files(tmp_path / "in", "a/1.png", "b/1.png")
    sources = [Source(str(tmp_path / "in" / name)) for name in ("a/1.png", "b/1.png")]
    with Ledger(out) as ledger:
        batch = Batch(Fake({"1.png": [ValueError("damaged")]}), paths_of(ledger, out), Log())
        batch.run(sources, 1)
    assert batch.counts == {"failed": 1, "enlarged": 1}


@pytest.mark.parametrize(
    ("names", "pattern", "expected"),
    [
        (["a/1.png", "b/1.png"], "{parent}-{stem}", {"a-1.png", "b-1.png"}),
        (["scan.bmp", "scan.tif", "scan.png"], "{stem}_{suffix}", {"scan_bmp.png", "scan_tif.png", "scan_png.png"}),
        (["a/1.png", "b/1.png"], "{n}", {"1.png", "2.png"}),
    ],
    ids=["parent", "suffix", "n"],
)
def test_fields_of_the_name_keep_results_of_photos_with_one_name_apart(
    tmp_path: Path, out: Path, names: list[str], pattern: str, expected: set[str]
) -> None:
    files(tmp_path / "in", *names)
    with Ledger(out) as ledger:
        batch = Batch(Fake(), paths_of(ledger, out, pattern), Log())
        batch.run([Source(str(tmp_path / "in" / name)) for name in names], 1)
    assert {path.name for path in out.glob("*.png")} == expected


@pytest.mark.parametrize(
    ("one", "other", "field"),
    [("x/scan.bmp", "x/scan.tif", "suffix"), ("x/1.png", "y/1.png", "parent"), ("x/in/1.png", "y/in/1.png", "n")],
)
def test_the_advice_names_a_field_that_helps(tmp_path: Path, out: Path, one: str, other: str, field: str) -> None:
    files(tmp_path, one, other)
    with Ledger(out) as ledger:
        paths = paths_of(ledger, out)
        paths.reserve(Source(str(tmp_path / one)), 1)
        with pytest.raises(OutputTaken, match=f"put {{{field}}} into --name"):
            paths.reserve(Source(str(tmp_path / other)), 2)


def test_urls_with_one_file_name_are_kept_apart_by_parent(out: Path) -> None:
    with Ledger(out) as ledger:
        paths = paths_of(ledger, out, "{parent}_{stem}")
        for url, name in (("https://a.example/x/1.png", "x_1"), ("https://b.example/1.png", "b.example_1")):
            assert paths.reserve(Source(url), 1).path.stem == name


@pytest.mark.parametrize("pattern", ["x", "{factor}", "{stem}/{stem}", "{other}{stem}", "{stem", "{}", "{stem.x}"])
def test_a_wrong_name_pattern_is_refused(pattern: str) -> None:
    with pytest.raises((ValueError, AttributeError)):
        check_pattern(pattern)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_or_read_only_disk_ends_the_batch_and_cancels_running_jobs(
    tmp_path: Path, out: Path, number: int
) -> None:
    class Full(Fake):
        def enlarge(self, image: str, callbacks: Callbacks) -> Output:
            super().enlarge(image, callbacks)

            def fail(path: Path) -> None:
                raise OSError(number, os.strerror(number))

            return enlarged(fail)

    fake, log = Full(), Log()
    with Ledger(out) as ledger:
        batch = Batch(fake, paths_of(ledger, out), log)
        batch.run(files(tmp_path / "in", *(f"{index}.png" for index in range(50))), 2)
    assert isinstance(batch.lost, OutputUnwritable)
    assert str(batch.lost).startswith(f"Nothing more can be saved in {out}: ")
    assert fake.cancelled
    assert len(fake.seen) <= 4
    assert log.outcomes == []


def test_a_ledger_that_cannot_be_written_ends_the_batch(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = files(tmp_path / "in", "a.png", "b.png")
    with Ledger(out) as ledger:
        full = sqlite3.OperationalError("database or disk is full")
        monkeypatch.setattr(ledger, "claim", raising(full))
        fake = Fake()
        batch = Batch(fake, paths_of(ledger, out), Log())
        batch.run(sources, 1)
    assert fake.seen == []
    assert "database or disk is full" in str(batch.lost)


def test_an_output_folder_that_cannot_be_written_is_named_before_the_first_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputUnwritable, match="file/below: Not a directory"):
        check_folder(tmp_path / "file/below")
    check_folder(tmp_path / "new/folder")
    assert list((tmp_path / "new/folder").iterdir()) == []


def test_expanded_files_of_one_name_get_folders_of_their_own(tmp_path: Path, out: Path) -> None:
    files(tmp_path / "in", "a/1.png", "b/1.png")
    sources = expand([str(tmp_path / "in/a/1.png"), str(tmp_path / "in/b/1.png")], io.StringIO())
    with Ledger(out) as ledger:
        Batch(Fake(), paths_of(ledger, out), Log()).run(sources, 1)
    assert {str(path.relative_to(out)) for path in out.rglob("*.png")} == {"a/1_x4.png", "b/1_x4.png"}
