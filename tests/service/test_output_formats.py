"""AVIF, JPEG XL and TIFF results of real jobs: over HTTP, by the command, and on the page."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from tests.support.browser import Draw, Visit, choose, done
from tests.support.command import upres
from tests.support.images import encoded
from tests.support.paths import SAMPLES
from upres.client import Client
from upres.core.formats import CONTENT_TYPES, EXTENSIONS
from upres.core.schema import OutputFormat
from upres.embedded.stack import Local
from upres.worker.imaging.kinds import kind_of


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    with Image.open(SAMPLES / "chelsea.png") as image:
        return np.asarray(image.convert("RGB").crop((100, 50, 148, 86)))


@pytest.fixture(scope="module")
def photo(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize(("format", "kind", "far"), [("tiff", "TIFF", 0), ("jxl", "JPEG XL", 0), ("avif", "AVIF", 12)])
def test_a_job_has_both_images_in_the_wanted_format(
    client: Client, photo: bytes, format: OutputFormat, kind: str, far: int
) -> None:
    plain = Image.open(io.BytesIO(client.upscale(photo, 2).download())).convert("RGB")
    job = client.upscale(photo, 2, output_format=format, lossless=True if format == "jxl" else None)
    assert (job.result.format, job.result.file_name.rpartition(".")[2]) == (format, EXTENSIONS[format])
    for which in ("result", "original"):
        assert kind_of(job.download(which)) == kind
    decoders: dict[str, Callable[[bytes], np.ndarray]] = {
        "tiff": imagecodecs.tiff_decode,
        "jxl": imagecodecs.jpegxl_decode,
        "avif": imagecodecs.avif_decode,
    }
    made = decoders[format](job.download())
    assert np.abs(made.astype(int) - np.asarray(plain)).max() <= far
    answer = requests.get(job.result.sr_image_url, timeout=20)
    assert answer.headers["Content-Type"] == CONTENT_TYPES[format]


def test_quality_and_lossless_make_other_results_and_the_same_ones_are_shared(
    client: Client, pixels: np.ndarray
) -> None:
    photo = encoded(Image.fromarray(pixels), "JPEG")
    jobs = [
        client.upscale(photo, 2, **options)
        for options in ({}, {"quality": 40}, {"quality": 40}, {"lossless": True}, {"quality": None})
    ]
    plain, small, again, exact, none = (job.result for job in jobs)
    assert small.sr_image_uri == again.sr_image_uri != plain.sr_image_uri == none.sr_image_uri
    assert (plain.format, small.format, exact.format) == ("jpeg", "jpeg", "png")
    assert len(jobs[1].download()) < len(jobs[0].download()) / 2


def test_a_job_of_16_bits_keeps_them_in_tiff_and_jpeg_xl(client: Client, pixels: np.ndarray) -> None:
    deep = imagecodecs.png_encode(pixels.astype(np.uint16) * 256 + 77)
    png = imagecodecs.png_decode(client.upscale(bytes(deep), 2).download())
    tiff = client.upscale(bytes(deep), 2, output_format="tiff")
    jxl = client.upscale(bytes(deep), 2, output_format="jxl", lossless=True, output_depth=16)
    assert tiff.result.depth == jxl.result.depth == 16
    assert (imagecodecs.tiff_decode(tiff.download()) == png).all()
    assert (imagecodecs.jpegxl_decode(jxl.download()) == png).all()


def test_an_estimate_knows_the_limits_of_the_formats(client: Client) -> None:
    limits: dict[OutputFormat, bool] = {"avif": False, "jxl": True, "tiff": True}
    for format, accepted in limits.items():
        answer = client.estimate(9000, 20, output_format=format)
        assert (answer.accepted, answer.code) == (accepted, None if accepted else "format_limit")


def test_the_command_writes_the_new_formats(local: Local, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(photo)
    for options, name in (
        (("--format", "jxl", "--lossless"), "cat_x2.jxl"),
        (("--format", "avif", "--quality", "70"), "cat_x2.avif"),
        (("--format", "tiff", "--local"), "cat_x2.tif"),
    ):
        done = upres(local, "cat.png", "--factor", "2", "--json", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[0])["output"].endswith(name)
        assert kind_of((tmp_path / name).read_bytes())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--format", "png", "--quality", "80"), "png is always lossless"),
        (("--format", "jpeg", "--lossless"), "jpeg is never lossless"),
        (("--quality", "80", "--lossless"), "not both"),
        (("--quality", "0"), "1<=x<=100"),
    ],
)
def test_the_command_refuses_options_that_contradict_each_other(options: tuple[str, ...], says: str) -> None:
    refused = upres(None, "cat.png", *options)
    assert refused.returncode == 2
    assert says in " ".join(refused.stderr.split())


@pytest.mark.parametrize(("format", "name"), [("tiff", "TIFF"), ("avif", "AVIF")])
def test_the_page_offers_a_result_that_the_browser_cannot_show(
    visit: Visit, page: Page, draw: Draw, format: str, name: str
) -> None:
    page.locator("select[name=format]").select_option(format)
    choose(page, draw("cat.png", (120, 90)), factor=2)
    done(page)
    if format == "avif":
        expect(page.locator(".controls")).to_be_visible()
        assert page.locator("img.after").evaluate("image => image.naturalWidth") == 240
        return
    state = page.locator(".card .state")
    expect(state).to_contain_text(f"This browser cannot show {name}; download it.")
    expect(page.locator("img.after")).to_be_hidden()
    expect(page.locator(".viewer")).to_be_visible()
    assert page.locator("img.before").evaluate("image => image.naturalWidth") == 120
    page.reload()
    done(page)
    expect(state).to_contain_text("download it")
    page.wait_for_function("document.querySelector('img.before').naturalWidth > 0")
    with page.expect_download() as started:
        page.locator(".download").click()
    assert started.value.suggested_filename == "cat_x2.tif"
    assert kind_of(Path(started.value.path()).read_bytes()) == "TIFF"
