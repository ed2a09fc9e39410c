"""Tests of complete jobs: over HTTP and Redis, with the real model and the real store."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.support.devices import equal, under_test
from tests.support.images import encoded, opened, psnr
from tests.support.paths import SAMPLES
from tests.support.servers import body, http_server
from upres.client import Client, JobFailed
from upres.core.schema import Event, Failed, Progress, Snapshot, Started, Succeeded, WantedDepth, WantedFormat
from upres.embedded.stack import Local
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.runtimes import choose
from upres.worker.model import Model


@pytest.mark.device
def test_a_job_runs_from_submission_to_download(
    client: Client, local: Local, png: bytes, photo: Image.Image, model: Model
) -> None:
    received: list[Event] = []
    upscaled = client.upscale(png, 4, on_event=received.append)
    assert [event.type for event in received if event.type != "progress"] == ["queued", "started", "succeeded"]
    progress = [event for event in received if isinstance(event, Progress)]
    stages = list(dict.fromkeys(event.stage for event in progress))
    assert stages == ["fetch", "decode", "upscale", "encode", "store"]
    assert [event.percent for event in progress] == sorted(event.percent for event in progress)
    assert (progress[-1].tiles_done, progress[-1].tiles_total) == (1, 1)

    result = upscaled.result
    large = opened(upscaled.download())
    with DeviceThread() as thread:
        engine = Engine(model.manifest, choose(model, under_test()), thread)
        expected = engine.upscale(np.asarray(opened(png)), 4)
    assert equal(np.asarray(large), expected)
    assert (result.width, result.height, result.format, result.upscale_factor) == (256, 192, "png", 4)
    assert (result.model, result.model_version, result.model_digest) == ("faithful", "1", model.digest)
    assert result.device
    assert set(result.seconds) == set(stages)
    assert result.sr_image_uri == f"s3://upres/results/anybody/{upscaled.job_id}/1/sr.png"

    original = opened(upscaled.download("original"))
    bicubic = opened(png).convert("RGB").resize((256, 192), Image.Resampling.BICUBIC)
    assert (np.asarray(original) == np.asarray(bicubic)).all()
    linked = requests.get(result.sr_image_url, timeout=10)
    assert linked.content == upscaled.download()
    assert linked.headers["Content-Type"] == "image/png"

    state = client.status(upscaled.job_id)
    assert (state.status, state.percent, state.result) == ("succeeded", 100, result)
    redirect = requests.get(f"{local.url}/v1/jobs/{upscaled.job_id}/result", allow_redirects=False, timeout=10)
    assert redirect.status_code == 302
    assert redirect.headers["Cache-Control"] == "no-store"
    assert requests.get(redirect.headers["Location"], timeout=10).content == upscaled.download()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_every_factor_gives_a_better_image_than_bicubic(client: Client, factor: int) -> None:
    with Image.open(SAMPLES / "chelsea.png") as image:
        large = image.convert("RGB").crop((0, 0, 448, 296)).crop((96, 64, 352, 256))
    small = large.resize((large.width // factor, large.height // factor), Image.Resampling.BICUBIC)
    upscaled = client.upscale(encoded(small, "PNG"), factor)
    enlarged, bicubic = opened(upscaled.download()), opened(upscaled.download("original"))
    assert enlarged.size == large.size
    assert psnr(enlarged, large) > psnr(bicubic, large) + (0.1 if factor == 8 else 0.3)


@pytest.mark.parametrize(("pillow", "format"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp")])
@pytest.mark.parametrize("wanted", ["auto", "png", "jpeg", "webp"])
def test_every_input_format_can_become_every_output_format(
    client: Client, photo: Image.Image, pillow: str, format: str, wanted: WantedFormat
) -> None:
    upscaled = client.upscale(encoded(photo, pillow), 2, output_format=wanted)
    expected = format if wanted == "auto" else wanted
    assert upscaled.result.format == expected
    image = opened(upscaled.download())
    assert image.format == expected.upper()
    assert psnr(image, photo.resize(image.size, Image.Resampling.BICUBIC)) > 24
    assert opened(upscaled.download("original")).format == expected.upper()


def test_the_result_keeps_alpha_and_grayscale(client: Client, photo: Image.Image) -> None:
    image = photo.convert("L")
    image.putalpha(Image.linear_gradient("L").resize(photo.size))
    result = opened(client.upscale(encoded(image, "PNG"), 2).download())
    assert (result.mode, result.size) == ("LA", (128, 96))


@pytest.mark.parametrize(("wanted", "format", "mode", "depth"), [
    ("auto", "auto", "I;16", 16), (16, "auto", "I;16", 16), (8, "auto", "L", 8), ("auto", "jpeg", "L", 8),
])  # fmt: skip
def test_a_16_bit_image_gets_the_wanted_depth(
    client: Client, wanted: WantedDepth, format: WantedFormat, mode: str, depth: int
) -> None:
    ramp = Image.fromarray((np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64))
    upscaled = client.upscale(encoded(ramp, "PNG"), 2, output_format=format, output_depth=wanted)
    result = opened(upscaled.download())
    assert (upscaled.result.depth, result.mode, result.size) == (depth, mode, (128, 96))
    if depth == 16:
        assert len(np.unique(np.asarray(result))) >= 4096
        assert opened(upscaled.download("original")).mode == mode


def test_a_jpeg_with_16_bits_becomes_a_png(client: Client, photo: Image.Image) -> None:
    upscaled = client.upscale(encoded(photo, "JPEG"), 2, output_depth=16)
    assert (upscaled.result.depth, upscaled.result.format, upscaled.result.file_name[-4:]) == (16, "png", ".png")


def test_progress_events_report_each_finished_tile(client: Client) -> None:
    received: list[Event] = []
    with Image.open(SAMPLES / "chelsea.png") as image:
        piece = image.convert("RGB").crop((0, 0, 170, 40))
    client.upscale(encoded(piece, "JPEG"), 8, on_event=received.append)
    tiles = [event for event in received if isinstance(event, Progress) and event.stage == "upscale"]
    # Factor 4 on 170×40 pixels needs one tile, then factor 2 on 680×160 pixels needs two.
    assert [(event.tiles_done, event.tiles_total) for event in tiles] == [(0, 0), (1, 3), (2, 3), (3, 3)]
    assert all(event.eta_seconds for event in tiles[1:])


def test_an_image_url_is_fetched_and_names_the_result(client: Client, png: bytes) -> None:
    with http_server(body(png)) as url:
        upscaled = client.upscale(f"{url}/a%20cat.png?x=1", 2)
    assert upscaled.result.file_name == "a cat_x2.png"
    assert opened(upscaled.download()).size == (128, 96)


def test_an_uploaded_image_is_found_by_its_key(local: Local, client: Client, png: bytes) -> None:
    local.store.put("uploads/by-hand", png)
    accepted = requests.post(
        f"{local.url}/v1/jobs", json={"image_key": "uploads/by-hand", "image_name": "../../x.y.png"}, timeout=10
    ).json()
    last = list(client.events(accepted["job_id"]))[-1]
    assert isinstance(last, Succeeded)
    assert last.result.file_name == "x.y_x4.png"


def fail(client: Client, local: Local, **fields: Any) -> Failed:
    accepted = requests.post(f"{local.url}/v1/jobs", json=fields, timeout=10).json()
    last = list(client.events(accepted["job_id"]))[-1]
    assert isinstance(last, Failed)
    state = client.status(accepted["job_id"])
    assert state.failure is not None
    assert (state.status, state.failure.code) == ("failed", last.code)
    return last


def test_jobs_with_invalid_images_fail_with_an_error_code(client: Client, local: Local, png: bytes) -> None:
    cases = {
        "not_an_image": b"hello, I am a text file",
        "truncated_image": png[: len(png) // 2],
        "unsupported_image": b"%PDF-1.7 and so on",
        "too_many_pixels": encoded(Image.new("1", (1001, 1000)), "PNG"),
        "format_limit": encoded(Image.new("1", (5000, 1)), "PNG"),
    }
    for code, data in cases.items():
        failed = fail(client, local, image_base64=base64.b64encode(data).decode(), output_format="webp")
        assert (failed.code, failed.retryable) == (code, False), failed


def test_jobs_with_bad_urls_or_missing_uploads_fail_with_an_error_code(client: Client, local: Local) -> None:
    with http_server(body(b"no", 404)) as missing, http_server(body(b"x" * 1_000_001)) as large:
        cases = {
            "url_answered_error": missing,
            "too_many_bytes": large,
            "url_refused": "http://127.0.0.1:1/",
            "upload_not_found": None,
        }
        for code, url in cases.items():
            fields = {"image_url": url} if url else {"image_key": "uploads/nothing-here"}
            assert fail(client, local, **fields).code == code
    unreachable = fail(client, local, image_url=missing)
    assert (unreachable.code, unreachable.retryable) == ("url_unreachable", True)


def test_factor_8_accepts_only_a_quarter_of_the_pixels(client: Client, local: Local) -> None:
    data = base64.b64encode(encoded(Image.new("1", (501, 500)), "PNG")).decode()
    failed = fail(client, local, image_base64=data, upscale_factor=8)
    assert failed.code == "too_many_pixels"
    assert "0.25 megapixels" in failed.message


def test_a_running_job_stops_at_most_one_tile_after_a_cancel(client: Client) -> None:
    job_id = client.submit(SAMPLES / "coffee.png", 8).job_id
    received: list[Event] = []
    for event in client.events(job_id):
        received.append(event)
        if isinstance(event, Progress) and event.tiles_done == 1:
            assert client.cancel(job_id).status == "cancelled"
    assert received[-1].type == "cancelled"
    assert not any(isinstance(event, Progress) and event.tiles_done > 2 for event in received)
    assert client.status(job_id).result is None


def test_a_failed_job_raises_job_failed_in_the_client(client: Client) -> None:
    with pytest.raises(JobFailed, match="PNG, JPEG, WebP") as caught:
        client.upscale(b"no image")
    assert caught.value.code == "not_an_image"


def test_a_started_event_names_worker_device_and_model(client: Client, png: bytes) -> None:
    received: list[Event] = []
    client.upscale(png, 2, on_event=received.append)
    [started] = [event for event in received if isinstance(event, Started)]
    assert started.device
    assert started.worker
    assert (started.attempt, started.model) == (1, "faithful")
    assert isinstance(client.status(started.job_id), Snapshot)


def test_the_result_keeps_the_icc_profile(client: Client, photo: Image.Image) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = client.upscale(encoded(photo, "JPEG", icc_profile=profile), 2).download()
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == profile
