"""Batches of many images: which images are selected, skipped and retried, and which errors stop the batch."""

import io
import multiprocessing
import os
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from upres.client import batch as batch_module
from upres.client.atomic_file import MayReplace, atomic_write
from upres.client.batch import Batch, Callbacks, Outcome
from upres.client.errors import JobFailed, RequestRefused, ServerUnreachable
from upres.client.ledger import Ledger
from upres.client.output_paths import NAME as NAME_PATTERN
from upres.client.output_paths import Output, OutputPaths
from upres.client.sources import Source, expand
from upres.core.api import Problem
from upres.core.schema import Result

RESULT = Result(
    sr_image_url="", sr_image_uri="", original_image_url="", original_image_uri="", upscale_factor=4, width=8, height=8,
    format="png", file_name="", model="m", model_version="1", model_digest="d", device="here", seconds={},
)  # fmt: skip
OPTIONS = {"factor": "4", "model": "default", "model_version": "", "output_format": "png"}


def save(path: Path, may_replace: MayReplace) -> None:
    with atomic_write(path, may_replace) as file:
        file.write(b"enlarged")


class Fake:
    """A backend that records the images that it receives and raises the planned errors."""

    def __init__(self, errors: dict[str, list[Exception]] | None = None) -> None:
        self.errors, self.seen, self.cancelled = errors or {}, list[str](), False

    def enlarge(self, image: str, callbacks: Callbacks) -> Output:
        self.seen.append(Path(image).name)
        if planned := self.errors.get(Path(image).name):
            raise planned.pop(0)
        return Output(RESULT, save)

    def cancel(self) -> None:
        self.cancelled = True


class Log:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def begin(self, source: Source) -> Callbacks:
        return Callbacks(lambda event: None, lambda sent, total: None)

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def run(
    fake: Fake, sources: list[Source], out: Path, at_once: int = 3, force: bool = False, **options: str
) -> tuple[Batch, Log]:
    log = Log()
    with Ledger(out) as ledger:
        batch = Batch(fake, OutputPaths(ledger, out, NAME_PATTERN, {**OPTIONS, **options}, force), log)
        batch.run(sources, at_once)
    return batch, log


def files(folder: Path, *names: str) -> list[Source]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"image")
    return list(expand([str(folder)], io.StringIO(), os.path.realpath(folder / "out")))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "PAUSE_SECONDS", 0.01)


def test_arguments_can_be_folders_glob_patterns_lists_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "in/b.JPG",
        "in/a.png",
        "in/deep/er/c.webp",
        "in/notes.txt",
        "in/.hidden.png",
        "in/.git/x.png",
        "in/out/d.png",
    )
    files(tmp_path, *names)
    monkeypatch.chdir(tmp_path)

    def meant(*arguments: str, lines: str = "") -> list[str]:
        return [source.name for source in expand(arguments, io.StringIO(lines), os.path.realpath("in/out"))]

    assert meant("in") == ["a.png", "b.JPG", "deep/er/c.webp"]
    assert meant("in/notes.txt") == ["notes.txt"]
    assert sorted(meant("in/**/*.[pw]*")) == ["a.png", "deep/er/c.webp"]
    assert meant("-", lines="in/a.png\n\n-\nhttps://example.org/x%20y.png?z=1\n") == ["in/a.png", "x y.png"]
    assert meant("https://example.org/") == ["image"]
    Path("[odd].png").write_bytes(b"image")
    assert meant("[odd].png") == ["[odd].png"]


def test_folder_structure_is_kept_and_finished_images_are_skipped(tmp_path: Path, out: Path) -> None:
    sources = files(tmp_path / "in", "a.png", "deep/a.png", "deep/b.jpg")
    first = Fake()
    batch, _ = run(first, sources, out)
    assert batch.counts == {"enlarged": 3}
    assert {str(path.relative_to(out)) for path in out.rglob("*.png")} == {
        "a_x4.png", "deep/a_x4.png", "deep/b_x4.png"
    }  # fmt: skip
    again = Fake()
    assert run(again, sources, out)[0].counts == {"skipped": 3}
    assert again.seen == []
    (tmp_path / "in" / "a.png").write_bytes(b"another image")
    (out / "deep" / "b_x4.png").unlink()
    assert run(again, sources, out)[0].counts == {"enlarged": 2, "skipped": 1}
    assert sorted(again.seen) == ["a.png", "b.jpg"]
    assert run(Fake(), sources, out, model="other")[0].counts == {"enlarged": 3}
    assert run(Fake(), sources, out)[0].counts == {"enlarged": 3}  # the files there are the other model's results
    assert run(Fake(), sources, out, force=True)[0].counts == {"enlarged": 3}


def test_a_result_never_overwrites_another_result_or_a_foreign_file(tmp_path: Path, out: Path) -> None:
    (out / "b_x4.png").write_bytes(b"mine")
    sources = files(tmp_path / "in", "a.png", "a.jpg", "b.png")
    fake = Fake()
    batch, log = run(fake, sources, out, at_once=1)
    assert batch.counts == {"enlarged": 1, "failed": 2}
    assert len(fake.seen) == 1  # an image is not enlarged if its result cannot be saved
    errors = [str(outcome.error) for outcome in log.outcomes if outcome.error]
    assert any("is the result of" in error for error in errors)
    assert any("--force replaces it" in error for error in errors)
    assert (out / "b_x4.png").read_bytes() == b"mine"
    assert run(Fake(), sources, out, at_once=1)[0].counts == {"skipped": 1, "failed": 2}
    (out / "b_x4.png").unlink()
    assert run(Fake(), sources, out, at_once=1)[0].counts == {"skipped": 1, "enlarged": 1, "failed": 1}


def test_moved_images_are_enlarged_again_and_duplicate_arguments_only_once(tmp_path: Path, out: Path) -> None:
    files(tmp_path / "in", "a.png")
    assert run(Fake(), list(expand([str(tmp_path / "in")], io.StringIO())), out)[0].counts == {"enlarged": 1}
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = list(expand([str(tmp_path / "moved")], io.StringIO()))
    assert run(Fake(), moved, out)[0].counts == {"enlarged": 1}
    assert run(Fake(), moved * 4, out, at_once=4, model="other")[0].counts == {"enlarged": 1, "skipped": 3}
    assert list(out.glob(".*.part")) == []


def test_a_photo_is_not_overwritten_by_its_result(tmp_path: Path) -> None:
    sources = files(tmp_path, "a.png")
    log = Log()
    with Ledger(tmp_path) as ledger:
        options = {**OPTIONS, "model": "../../evil/m"}
        batch = Batch(Fake(), OutputPaths(ledger, tmp_path, "{stem}", options, True), log)
        batch.run(sources, 1)
    assert "is the photo itself" in str(log.outcomes[0].error)
    assert (tmp_path / "a.png").read_bytes() == b"image"


def test_symlink_loops_and_unreadable_folders_do_not_stop_the_batch(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "in"
    files(folder, "a.png", "deep/b.png")
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"image")
    sources = [*expand([str(folder)], io.StringIO()), Source(str(folder / "closed"), trouble=PermissionError(13, "no"))]
    assert len(sources) == 4
    batch, _ = run(Fake(), sources, out)
    assert batch.counts == {"enlarged": 3, "failed": 1}
    assert run(Fake(), sources, out)[0].counts == {"skipped": 3, "failed": 1}


def test_errors_not_caused_by_an_image_are_reported_as_batch_lost(tmp_path: Path, out: Path) -> None:
    class Broken(Log):
        def end(self, outcome: Outcome) -> None:
            raise BrokenPipeError

    def names() -> Iterator[Source]:
        yield sources[0]
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "odd")

    sources = files(tmp_path / "in", *(f"{number}.png" for number in range(20)))
    with Ledger(out) as ledger:
        for log, given, kind in ((Broken(), iter(sources), BrokenPipeError), (Log(), names(), UnicodeDecodeError)):
            batch = Batch(Fake(), OutputPaths(ledger, out, NAME_PATTERN, OPTIONS, False), log)
            batch.run(given, 3)
            assert isinstance(batch.lost, kind)


def test_a_short_429_is_retried_but_a_long_429_or_a_503_stops_the_batch(tmp_path: Path, out: Path) -> None:
    def received(seconds: float, status: int = 429) -> RequestRefused:
        problem = Problem(type="t", title="t", status=status, detail="Later.", code="rate_limited", retryable=True)
        return RequestRefused(problem, seconds)

    sources = files(tmp_path / "in", *(f"{number}.png" for number in range(5)))
    patient = Fake({"0.png": [received(0.01) for _ in range(10)]})
    assert run(patient, sources, out)[0].counts == {"enlarged": 5}
    for error in (received(80_000), received(5, 503)):
        away = Fake({"0.png": [error]})
        batch, _ = run(away, sources, out, at_once=1, force=True)
        assert isinstance(batch.lost, RequestRefused)
        assert away.seen == ["0.png"]


def test_temporary_errors_are_retried(tmp_path: Path, out: Path) -> None:
    sources = files(tmp_path / "in", "a.png", "b.png", "c.png")
    passing, lasting = JobFailed("device_lost", "x", True), JobFailed("not_an_image", "x", False)
    fake = Fake({"a.png": [passing, passing], "b.png": [lasting], "c.png": [passing] * 3})
    batch, _ = run(fake, sources, out)
    assert batch.counts == {"enlarged": 1, "failed": 2}
    assert sorted(fake.seen) == ["a.png"] * 3 + ["b.png"] + ["c.png"] * 3
    assert run(Fake(), sources, out)[0].counts == {"skipped": 1, "enlarged": 2}


def test_an_unreachable_server_stops_the_batch(tmp_path: Path, out: Path) -> None:
    sources = files(tmp_path / "in", *(f"{number}.png" for number in range(20)))
    batch, _ = run(Fake({"3.png": [ServerUnreachable("gone")]}), sources, out, at_once=1)
    assert isinstance(batch.lost, ServerUnreachable)
    assert batch.counts["failed"] == 1
    assert batch.counts["enlarged"] < 19
    rest, _ = run(Fake(), sources, out)
    assert rest.counts["enlarged"] + batch.counts["enlarged"] == 20


def peak(image: str, count: int, folder: Path) -> int:
    """The peak memory, in bytes, that Python allocates while it enlarges the image `count` times."""

    class Quiet(Log):
        def end(self, outcome: Outcome) -> None:
            pass

    class Thrifty(Fake):
        def enlarge(self, image: str, callbacks: Callbacks) -> Output:
            return Output(RESULT, lambda path, may_replace: path.touch())

    folder.mkdir()
    sources = (Source(image, Path(str(number % 50), str(number))) for number in range(count))
    tracemalloc.start()
    with Ledger(folder) as ledger:
        options = {**OPTIONS, "folder": str(folder)}
        batch = Batch(Thrifty(), OutputPaths(ledger, folder, "{stem}", options, True), Quiet())
        batch.run(sources, 4)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(batch.counts.values()) == count
    return most


def test_memory_use_does_not_grow_with_the_number_of_images(tmp_path: Path, out: Path) -> None:
    """Compares the peak memory for 100 and for 3,000 images, in a process that does nothing else."""
    [one] = files(tmp_path / "in", "a.png")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        few = alone.submit(peak, one.image, 100, out / "few").result()
        # Python may enlarge its table of interned strings once (sys.intern), so a second peak counts, too.
        many = (alone.submit(peak, one.image, 10_000, out / name).result() for name in ("many", "as many"))
        assert any(peak < few + 300_000 for peak in many)


def test_concurrent_batches_can_share_an_output_folder(tmp_path: Path, out: Path) -> None:
    sources = files(tmp_path / "in", *(f"{number}.png" for number in range(60)))
    done: list[Batch] = []
    threads = [threading.Thread(target=lambda: done.append(run(Fake(), sources, out)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8
    assert all(batch.counts["failed"] == 0 and sum(batch.counts.values()) == 60 for batch in done)
