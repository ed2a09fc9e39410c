"""Tests of `upres FOLDER`, the command that enlarges many files, with the complete system."""

import json
import os
import signal
import struct
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command import upres
from tests.support.images import encoded, opened
from tests.support.paths import SAMPLES
from tests.support.waiting import wait_until
from upres.client.ledger import NAME
from upres.embedded.stack import Local, tool


@pytest.fixture
def folder(tmp_path: Path, photo: Image.Image) -> Path:
    for number, name in enumerate(("a.png", "deep/b.png", "deep/c.jpg")):
        photo.putpixel((2, 2), (number, 77, 7))
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(tmp_path / "in" / name)
    return tmp_path / "in"


def test_a_folder_is_enlarged_and_a_second_run_skips_finished_files(local: Local, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"no image")
    big = tmp_path / "big"
    done = upres(local, folder, "--factor", 2, "--out", big, "--json")
    assert done.returncode == 1
    *records, last = map(json.loads, done.stdout.splitlines())
    assert last["summary"] | {"seconds": 0} == {
        "enlarged": 3, "skipped": 0, "failed": 1, "seconds": 0, "interrupted": False
    }  # fmt: skip
    by_source = {Path(record["source"]).name: record for record in records}
    assert by_source["bad.png"]["error"]["code"] == "not_an_image"
    assert (by_source["c.jpg"]["width"], by_source["c.jpg"]["format"]) == (128, "jpeg")
    assert opened((big / "deep" / "c_x2.jpg").read_bytes()).size == (128, 96)
    again = upres(local, folder, "--factor", 2, "--out", big)
    assert "0 enlarged, 3 skipped, 1 failed" in again.stderr
    assert sorted(again.stdout.splitlines()) == sorted(str(path) for path in big.rglob("*_x2.*"))


def test_result_names_follow_the_name_pattern(local: Local, folder: Path, tmp_path: Path) -> None:
    done = upres(local, folder / "a.png", "--name", "big {stem} by {model} {factor}", "--out", tmp_path)
    assert done.stdout.strip() == str(tmp_path / "big a by default 4.png")
    for pattern in ("x", "{stem}/{stem}", "{other}{stem}", "{stem", "{}"):
        wrong = upres(local, folder / "a.png", "--name", pattern)
        assert wrong.returncode == 2, pattern
        assert "--name" in wrong.stderr


def test_after_ctrl_c_the_same_command_enlarges_only_the_rest(local: Local, folder: Path, tmp_path: Path) -> None:
    with Image.open(SAMPLES / "chelsea.png") as image:
        for number in range(6):
            image.crop((number, number, 300 + number, 280)).save(folder / f"large {number}.png")
    big = tmp_path / "big"
    command = [tool("upres"), str(folder), "--out", str(big), "--at-once", "2"]
    environment = {**os.environ, "UPRES_URL": local.url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
        wait_until(lambda: list(big.rglob("*.png")))
        begun.send_signal(signal.SIGINT)
        _, received = begun.communicate(timeout=20)
    assert begun.returncode == -signal.SIGINT
    assert "the same command goes on from here" in received
    finished = {path: path.stat().st_mtime_ns for path in big.rglob("*_x4.*")}
    assert not list(big.rglob("*.part"))
    rest = upres(local, folder, "--out", big)
    assert rest.returncode == 0, rest.stderr
    assert f"{len(finished)} skipped" in rest.stderr
    assert len(list(big.rglob("*_x4.*"))) == 9
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert (big / NAME).exists()


def test_after_a_kill_the_same_command_enlarges_the_rest(local: Local, folder: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    command = [tool("upres"), str(folder), "--out", str(big), "--at-once", "1", "--factor", "8"]
    environment = {**os.environ, "UPRES_URL": local.url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as begun:
        wait_until(lambda: list(big.rglob("*_x8.*")))
        begun.kill()
    rest = upres(local, folder, "--out", big, "--factor", "8")
    assert rest.returncode == 0, rest.stderr
    assert len(list(big.rglob("*_x8.*"))) == 3


def test_a_list_of_files_is_read_from_stdin(local: Local, folder: Path, tmp_path: Path) -> None:
    names = "\n".join(str(path) for path in sorted(folder.rglob("*.*g")))
    command = [tool("upres"), "-", "--out", str(tmp_path / "big"), "--factor", "2"]
    environment = {**os.environ, "UPRES_URL": local.url}
    done = subprocess.run(command, env=environment, input=names, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "3 enlarged" in done.stderr


def test_local_mode_gives_the_same_pixels_as_the_server(local: Local, folder: Path, tmp_path: Path) -> None:
    here = upres(None, folder / "a.png", "--local", "--out", tmp_path / "here")
    assert here.returncode == 0, here.stderr
    there = upres(local, folder / "a.png", "--model", "photo", "--out", tmp_path / "there")
    assert there.returncode == 0, there.stderr
    images = [opened((tmp_path / where / "a_x4.png").read_bytes()) for where in ("here", "there")]
    assert images[0].tobytes() == images[1].tobytes()
    missing = upres(None, folder / "a.png", "--local", "--model", "nothing")
    assert missing.returncode == 1
    assert "There is no model 'nothing'" in missing.stderr


def test_estimate_prints_size_and_tiles_or_why_a_job_is_refused(local: Local, folder: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(encoded(Image.new("RGB", (1500, 1000)), "PNG"))
    received = upres(local, "--estimate", folder / "a.png", large, "https://example.org/x.png")
    assert received.returncode == 1
    assert "a.png: 256×192 by faithful 1, 1 tile, " in received.stdout
    assert "large.png: 6000×4000 by faithful 1, refused: The image has 1500×1000 pixels" in received.stdout
    assert "not known before it is fetched" in received.stderr
    [record] = map(json.loads, upres(local, "--estimate", "--json", folder / "a.png").stdout.splitlines())
    assert (record["width"], record["accepted"]) == (256, True)


def test_the_estimate_of_a_folder_is_right_for_every_kind_of_file(
    local: Local, tmp_path: Path, photo: Image.Image
) -> None:
    """Suffixes of all kinds, images that are turned, and one that cannot be enlarged: it is named by both commands."""
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "in").mkdir()
    kinds = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.png": "PNG", "d.TIFF": "TIFF", "e.webp": "WEBP", "f.avif": "AVIF"}
    for name, format in kinds.items():
        (tmp_path / "in" / name).write_bytes(encoded(photo, format, exif=turned))
    head = struct.pack("<2sIIIIHHHH", b"BM", 26 + 3 * 4 * 5, 0, 26, 12, 4, 5, 1, 24)
    (tmp_path / "in" / "os2.BMP").write_bytes(head + bytes(range(3 * 4 * 5)))
    (tmp_path / "in" / "raw.CR2").write_bytes(b"II*\0")
    sizes = []
    for command in (["--estimate"], ["--out", "big"]):
        done = upres(local, "in", "--factor", 2, "--json", *command, cwd=tmp_path)
        assert done.returncode == 1
        assert "raw.CR2: skipped, because it is a camera's raw file" in " ".join(done.stderr.split())
        records = [record for record in map(json.loads, done.stdout.splitlines()) if "width" in record]
        sizes.append({Path(record["source"]).name: (record["width"], record["height"]) for record in records})
    assert sizes[0] == sizes[1] == {**dict.fromkeys(kinds, (96, 128)), "os2.BMP": (8, 10)}


def test_results_in_the_input_folder_are_not_enlarged_again(local: Local, folder: Path) -> None:
    for expected in ("3 enlarged", "0 enlarged, 3 skipped"):
        done = upres(local, folder, "--out", folder, "--factor", 2)
        assert done.returncode == 0, done.stderr
        assert expected in done.stderr
    assert len(list(folder.rglob("*.*g"))) == 6


def test_the_same_files_of_a_folder_can_be_named_again_and_again(local: Local, folder: Path) -> None:
    """First by two commands at once; the next one, and the estimate, name their result too."""
    command = [tool("upres"), "a.png", "--factor", "2"]
    environment = {**os.environ, "UPRES_URL": local.url}
    both = [subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    assert [one.communicate(timeout=60)[0] for one in both] == [b"a_x2.png\n"] * 2
    for option, expected in ("--json", '"skipped": 1'), ("--estimate", "a.png: 128×96"):
        done = upres(local, "a.png", "a_x2.png", "--factor", 2, option, cwd=folder)
        assert (done.returncode, [one.returncode for one in both]) == (0, [0, 0]), done.stderr
        assert expected in done.stdout
        assert "among the photos, left out: 1." in done.stderr
    assert sorted(path.name for path in folder.glob("*.png")) == ["a.png", "a_x2.png"]


def test_file_errors_give_a_message_without_a_traceback(local: Local, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / NAME).write_text("no database " * 100)
    for out in (tmp_path / "file" / "below", tmp_path / "broken"):
        done = upres(local, folder / "a.png", "--out", out)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
    wrong = upres(None, folder / "a.png", "--local", "--estimate")
    assert wrong.returncode == 2


def test_a_closed_output_pipe_ends_the_command_without_a_traceback(local: Local, folder: Path, tmp_path: Path) -> None:
    command = f"{tool('upres')} {folder} --out {tmp_path / 'big'} --factor 2 --at-once 1 | head -1"
    environment = {**os.environ, "UPRES_URL": local.url}
    script = f"{command}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "1", done
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", [[], ["--json"], ["--estimate"]])
def test_a_full_disk_under_stdout_is_told_in_one_sentence(
    local: Local, folder: Path, tmp_path: Path, option: list[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [tool("upres"), str(folder), "--out", str(tmp_path / "big"), "--factor", "2", *option],
            env={**os.environ, "UPRES_URL": local.url},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert "stdout: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_discards_the_list_of_results(local: Local, folder: Path, tmp_path: Path) -> None:
    """As in `upres … >&-`, or under a service manager that opens no streams."""
    command = f"{tool('upres')} {folder} --out {tmp_path / 'big'} --factor 2 <&- >&- 2>&-"
    assert subprocess.run(command, shell=True, env={**os.environ, "UPRES_URL": local.url}, timeout=60).returncode == 0
    assert len(list((tmp_path / "big").rglob("*.png"))) == len(list(folder.rglob("*.png")))


def test_a_folder_as_input_requires_the_out_option(folder: Path) -> None:
    wrong = upres(None, folder)
    assert wrong.returncode == 2
    assert "give --out DIR" in wrong.stderr


def test_skipped_results_are_named_as_when_they_were_made(local: Local, folder: Path, tmp_path: Path) -> None:
    made, skipped = (upres(local, "in", "--factor", 2, "--out", "big", cwd=tmp_path) for _ in range(2))
    assert "3 skipped" in skipped.stderr
    assert set(skipped.stdout.splitlines()) == set(made.stdout.splitlines())
    assert "big/a_x2.png" in skipped.stdout


def test_two_commands_at_once_lose_no_result(local: Local, tmp_path: Path, photo: Image.Image) -> None:
    """Twelve names are in both folders; each result is one command's, and the other command reports its failure."""
    environment = {**os.environ, "UPRES_URL": local.url}
    commands = []
    for color, where in enumerate(("one", "two")):
        (tmp_path / where).mkdir()
        for number in range(12):
            photo.putpixel((1, 1), (color, number, 9))
            photo.save(tmp_path / where / f"{number}.png")
        command = [tool("upres"), str(tmp_path / where), "--out", str(tmp_path / "big"), "--factor", "2", "--json"]
        commands.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs: list[str] = []
    codes: set[str] = set()
    for running in commands:
        printed, _ = running.communicate(timeout=100)
        records = [json.loads(line) for line in printed.splitlines()[:-1]]
        outputs += [record["output"] for record in records if record["status"] == "enlarged"]
        codes |= {record["error"]["code"] for record in records if record["status"] == "failed"}
        assert running.returncode == (1 if any(record["status"] == "failed" for record in records) else 0)
        assert len(records) == 12
    assert sorted(outputs) == sorted(str(tmp_path / "big" / f"{number}_x2.png") for number in range(12))
    assert codes == {"output_taken"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_file_names_that_stdout_cannot_encode_do_not_end_the_batch(
    local: Local, tmp_path: Path, photo: Image.Image, encoding: str
) -> None:
    names = ["plain.png", "Дом.png", os.fsdecode(b"caf\xe9.png")]
    for number, name in enumerate(names):
        photo.putpixel((1, 1), (number, 3, 9))
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(encoded(photo, "PNG"))
    environment = {**os.environ, "UPRES_URL": local.url, "PYTHONIOENCODING": encoding, "COLUMNS": "100"}

    def run(*arguments: object) -> "subprocess.CompletedProcess[bytes]":
        command = [tool("upres"), *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, timeout=100)

    done = run(tmp_path / "in", "--out", tmp_path / "big", "--factor", 2)
    assert done.returncode == 0, done.stderr
    lines = {line.rsplit(b"/", 1)[1] for line in done.stdout.splitlines()}
    cyrillic = "Дом" if encoding == "utf-8" else "???"
    assert lines == {b"plain_x2.png", f"{cyrillic}_x2.png".encode(), b"caf\xe9_x2.png"}
    assert run("--estimate", *(tmp_path / "in" / name for name in names)).returncode == 0
    shown = run("--help")
    assert shown.returncode == 0
    assert b"Usage: upres" in shown.stdout
