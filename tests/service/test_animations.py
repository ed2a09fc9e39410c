"""Animations as jobs: every frame is enlarged, told in the progress, and shown by a browser as long and as often."""

import base64
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.support.animations import GifFrame, PngFrame, apng, gif
from tests.support.command import upres
from tests.support.images import encoded, opened
from tests.support.paths import SAMPLES
from upres.client import Client
from upres.core.errors import UpresError
from upres.core.schema import Event, Progress
from upres.embedded.stack import Local
from upres.worker.imaging import images

Pixels = npt.NDArray[np.uint8]
LIMIT = 10**6
DECODE = """async ([type, text]) => {
    const data = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const decoder = new ImageDecoder({ type, data });
    await decoder.tracks.ready;
    await decoder.completed;
    const { frameCount, repetitionCount } = decoder.tracks.selectedTrack;
    const durations = [];
    for (let frameIndex = 0; frameIndex < frameCount; frameIndex++) {
        durations.push((await decoder.decode({ frameIndex })).image.duration / 1000);
    }
    return [frameCount, repetitionCount === Infinity ? "ever" : repetitionCount, durations];
}"""


@pytest.fixture(scope="module")
def frames() -> list[Pixels]:
    """Four frames: the third is equal to the second."""
    with Image.open(SAMPLES / "chelsea.png") as image:
        photo = np.asarray(image.convert("RGB").crop((120, 60, 168, 96)))
    return [photo, photo[::-1].copy(), photo[::-1].copy(), photo[:, ::-1].copy()]


@pytest.fixture(scope="module")
def animated(frames: list[Pixels]) -> bytes:
    return apng([PngFrame(frame, duration=(1 + number, 20)) for number, frame in enumerate(frames)], plays=3)


def test_each_frame_is_enlarged_and_told(client: Client, frames: list[Pixels], animated: bytes) -> None:
    seen: list[Event] = []
    job = client.upscale(animated, 2, on_event=seen.append)
    assert (job.result.frames, job.result.format, job.result.width) == (4, "png", 96)
    made = images.decode_all(job.download(), LIMIT)
    original = images.decode_all(job.download("original"), LIMIT)
    assert (made.durations, made.plays) == (original.durations, original.plays) == ((50, 100, 150, 200), 3)
    for number in (0, 1, 3):
        alone = client.upscale(encoded(Image.fromarray(frames[number]), "PNG"), 2)
        assert alone.result.frames == 1
        assert (made.frames[number].pixels == np.asarray(opened(alone.download()))).all()
        assert (original.frames[number].pixels == np.asarray(opened(alone.download("original")))).all()
    told = [event for event in seen if isinstance(event, Progress) and event.stage == "upscale" and event.tiles_done]
    assert [(event.frame, event.frames) for event in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [(event.tiles_done, event.tiles_total) for event in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert client.status(job.job_id).frame == 4


def test_the_first_frame_alone_is_another_result(client: Client, frames: list[Pixels], animated: bytes) -> None:
    seen: list[Event] = []
    first = client.upscale(animated, 2, frames="first", on_event=seen.append)
    assert (first.result.frames, first.result.notices) == (1, [])
    assert opened(first.download()).size == (96, 72)
    assert not getattr(opened(first.download()), "is_animated", False)
    assert all(event.frames is None for event in seen if isinstance(event, Progress))


def test_a_jpeg_says_that_it_cannot_move(client: Client, animated: bytes) -> None:
    seen: list[Event] = []
    still = client.upscale(animated, 2, output_format="jpeg", on_event=seen.append)
    assert still.result.notices == ["JPEG cannot move; the result is the first frame. Ask for gif, webp or png."]
    assert still.result.notices[0] in [event.notice for event in seen if isinstance(event, Progress)]
    assert still.result.frames == 1


def test_the_limit_counts_all_frames_in_job_and_estimate(client: Client) -> None:
    dot = GifFrame(np.zeros((1, 1), np.uint8))
    many = gif(250, 250, [dot] * 17)
    with pytest.raises(UpresError, match=r"17 frames of 250×250, 1\.1 megapixels together.*frames: first") as refused:
        client.upscale(many, 2)
    estimate = client.estimate(250, 250, 2, frame_count=17)
    assert (refused.value.code, str(refused.value)) == (estimate.code, estimate.detail)
    assert client.estimate(250, 250, 2, frame_count=17, frames="first").accepted
    assert client.estimate(250, 250, 2, frame_count=17, output_format="jpeg").accepted
    assert client.estimate(250, 250, 2, frame_count=5).tiles == 5 * client.estimate(250, 250, 2).tiles


def test_the_command_counts_frames_for_an_estimate(local: Local, tmp_path: Path, animated: bytes) -> None:
    (tmp_path / "a.png").write_bytes(animated)
    for options, tiles in (((), 4), (("--frames", "first"), 1), (("--format", "jpeg"), 1)):
        done = upres(local, "a.png", "--factor", 2, "--estimate", "--json", *options, cwd=tmp_path)
        assert json.loads(done.stdout)["tiles"] == tiles


@pytest.mark.parametrize(("loop", "plays"), [(None, 0), (0, "ever"), (2, 2)])
def test_a_browser_shows_results_as_long_and_as_often_as_the_input(
    client: Client, page: Page, loop: int | None, plays: int | str
) -> None:
    levels = np.arange(48, dtype=np.uint8).reshape(6, 8) % 4
    shown = [GifFrame(np.roll(levels, step).astype(np.uint8), delay=delay) for step, delay in enumerate((5, 20, 100))]
    given = gif(8, 6, shown, loop)
    expected = [3, plays, [50, 200, 1000]]
    assert page.evaluate(DECODE, ["image/gif", base64.b64encode(given).decode()]) == expected
    for format in ("gif", "png", "webp"):
        made = client.upscale(given, 2, output_format=format).download()
        assert page.evaluate(DECODE, [f"image/{format}", base64.b64encode(made).decode()]) == expected, format


def test_the_command_enlarges_animations_locally_too(tmp_path: Path, frames: list[Pixels]) -> None:
    first, *others = (Image.fromarray(frames[number]) for number in (0, 1, 3))
    moving = encoded(first, "WEBP", save_all=True, append_images=others, duration=[40, 50, 60])
    (tmp_path / "a.webp").write_bytes(moving)
    done = upres(None, "a.webp", "--local", "--factor", 2, "--json", cwd=tmp_path)
    assert '"frames": 3' in done.stdout
    made = images.decode_all((tmp_path / "a_x2.webp").read_bytes(), LIMIT)
    assert (made.durations[0], sum(made.durations), made.first.size) == (40, 150, (96, 72))
