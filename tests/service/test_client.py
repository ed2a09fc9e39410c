"""Tests of the command `upres` and of the Python SDK with a real server."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image
from redis import Redis

from tests.support.command import upres
from tests.support.paths import SAMPLES
from tests.support.servers import body, http_server
from upres.client import Client, RequestRefused, ServerUnreachable
from upres.core import keys, registry
from upres.core.schema import EVENT, Progress
from upres.embedded.child import free_port
from upres.embedded.stack import Local, tool
from upres.worker.imaging.kinds import NAMED


@pytest.fixture
def photo_file(tmp_path: Path, png: bytes) -> Path:
    path = tmp_path / "ein Photo.png"
    path.write_bytes(png)
    return path


def test_photos_are_enlarged_into_the_folder_given_with_out(
    local: Local, tmp_path: Path, photo_file: Path, photo: Image.Image
) -> None:
    other = tmp_path / "other.jpg"
    photo.save(other)
    done = upres(local, photo_file, other, "--factor", 2, "--out", tmp_path / "big")
    assert done.returncode == 0, done.stderr
    paths = [tmp_path / "big" / "ein Photo_x2.png", tmp_path / "big" / "other_x2.jpg"]
    assert sorted(done.stdout.splitlines()) == [str(path) for path in paths]
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (128, 96)
    assert "128×96" in done.stderr


def test_by_default_results_are_4x_and_in_the_current_folder(local: Local, tmp_path: Path, photo_file: Path) -> None:
    assert upres(local, photo_file, cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "ein Photo_x4.png") as image:
        assert image.size == (256, 192)


def test_the_command_accepts_the_url_of_a_photo(local: Local, tmp_path: Path, png: bytes) -> None:
    with http_server(body(png)) as url:
        done = upres(local, f"{url}/cat.png?size=big", "--format", "webp", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cat_x4.webp").exists()


def test_errors_are_reported_and_other_photos_are_still_enlarged(
    local: Local, tmp_path: Path, photo_file: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("hello")
    done = upres(local, text, tmp_path / "missing.png", photo_file, "--out", tmp_path)
    assert done.returncode == 1
    assert f"text.txt: The data is not an image; send a {NAMED} file." in done.stderr
    assert "missing.png: No such file or directory" in done.stderr
    assert (tmp_path / "ein Photo_x4.png").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_job_and_then_ends_the_command(
    local: Local, redis: Redis, client: Client, tmp_path: Path, number: signal.Signals
) -> None:
    pubsub = cast(Any, redis).pubsub(ignore_subscribe_messages=True)
    pubsub.psubscribe(keys.channel("*"))
    environment = {**os.environ, "UPRES_URL": local.url}
    command = [tool("upres"), str(SAMPLES / "coffee.png"), "--factor", "8", "--out", str(tmp_path)]
    earlier = signal.signal(number, signal.SIG_DFL)  # under nohup, children would inherit an ignored SIGHUP
    running = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    signal.signal(number, earlier)
    with running:
        event = next(
            event
            for message in pubsub.listen()
            if isinstance(event := EVENT.validate_json(message["data"]), Progress) and event.tiles_done
        )
        pubsub.close()
        running.send_signal(number)
        assert running.wait(10) == -number  # it dies by the signal, so that a shell loop around it ends too
    assert client.status(event.job_id).status == "cancelled"


def test_the_client_accepts_a_server_address_without_a_scheme(local: Local, png: bytes) -> None:
    with Client(local.url.removeprefix("http://")) as without_scheme:
        assert without_scheme.submit(png, 2).status == "queued"


def test_a_result_does_not_overwrite_the_result_of_another_photo(
    local: Local, tmp_path: Path, photo_file: Path
) -> None:
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / photo_file.name
    other.write_bytes(photo_file.read_bytes())
    assert upres(local, photo_file, "--out", tmp_path / "out").returncode == 0
    done = upres(local, other, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert f"is the result of {photo_file}; put {{parent}} into --name" in done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def test_brackets_in_file_names_are_printed_unchanged(local: Local, tmp_path: Path, photo_file: Path) -> None:
    odd = photo_file.rename(tmp_path / "x[red] [copy].png")
    done = upres(local, odd, tmp_path / "y[bold].png", "--factor", 2, "--out", tmp_path)
    assert "y[bold].png: No such file or directory" in done.stderr
    assert "x[red] [copy].png ━" in done.stderr
    assert (tmp_path / "x[red] [copy]_x2.png").exists()


def test_an_unreachable_server_gives_exit_code_3(tmp_path: Path, photo_file: Path) -> None:
    done = upres(None, photo_file, "--server", f"http://127.0.0.1:{free_port()}", "--out", tmp_path)
    assert done.returncode == 3
    assert "is upres running there?" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--factor", "3", "x.png"), ("--nonsense",)])
def test_wrong_arguments_print_the_usage_and_give_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = upres(None, *arguments)
    assert done.returncode == 2
    assert "Usage: upres enlarge [OPTIONS] PHOTO..." in done.stderr


def test_help_shows_options_examples_and_exit_codes() -> None:
    done = upres(None, "--help")
    assert done.returncode == 0
    for word in ("--factor [1|2|4|8]", "--out", "--format", "--server", "UPRES_URL", "Examples:", "Exit codes:"):
        assert word in done.stdout


def test_the_other_commands_and_modules_have_help() -> None:
    assert "[-- COMMAND...]" in upres(None, "up", "--help").stdout
    for module in ("upres.worker", "upres.function", "infra.demo", "benchmarks.quality", "benchmarks.entry"):
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert f"usage: python -m {module}" in done.stdout


def test_an_error_response_raises_request_refused(local: Local, client: Client, png: bytes) -> None:
    names = sorted(registry.index(local.store).models)  # faithful, and those that other tests have pushed
    with pytest.raises(RequestRefused, match=re.escape(f"available: {', '.join(names)}.")) as caught:
        client.submit(png, model="nonesuch")
    assert (caught.value.code, caught.value.status) == ("unknown_model", 422)


def test_a_server_that_is_not_upres_raises_server_unreachable(png: bytes) -> None:
    with http_server(body(b"I am not upres", 404)) as url, Client(url) as client, pytest.raises(ServerUnreachable):
        client.status("0" * 32)


def test_a_missing_file_raises_file_not_found_error(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client.submit("nowhere.png")


def test_a_result_is_saved_at_the_given_path(client: Client, tmp_path: Path, photo_file: Path) -> None:
    saved = client.upscale(photo_file, 2).save(tmp_path / "out.png")
    with Image.open(saved) as image:
        assert image.size == (128, 96)


def test_following_after_an_event_id_gives_only_the_later_events(client: Client, png: bytes) -> None:
    job_id = client.upscale(png, 2).job_id
    everything = list(client.follow(job_id))
    assert everything[0][1].type == "queued"
    assert everything[-1][1].type == "succeeded"
    for index, (event_id, _) in enumerate(everything):
        assert list(client.follow(job_id, after=event_id)) == everything[index + 1 :]
