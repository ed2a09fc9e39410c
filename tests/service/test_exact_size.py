"""Results of a wanted size, over HTTP and with the command: by exact sizes, by pixels, and as estimated."""

import base64
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import requests
from PIL import ExifTags, Image

from tests.support.command import upres
from tests.support.images import encoded, opened
from upres.client import Client, Upscaled
from upres.client.atomic_file import always
from upres.client.batch import Callbacks
from upres.client.errors import JobFailed, RequestRefused
from upres.client.protocol import JobOptions, noop
from upres.embedded.stack import Local
from upres.models.inprocess import InProcess
from upres.worker.imaging.downscale import downscaled

SIZE = (33, 20)


def photo(mode: str = "RGB") -> bytes:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    waves = np.dstack([128 + 100 * np.sin(x / 3 + channel) * np.cos(y / (2 + channel)) for channel in range(4)])
    return encoded(Image.fromarray(waves.astype(np.uint8)).convert(mode), "PNG")


def pixels(made: Upscaled, which: Any = "result") -> np.ndarray:
    with opened(made.download(which)) as image:
        return np.asarray(image)


def smaller(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.concatenate(list(downscaled([image], (image.shape[1], image.shape[0]), size)))


@pytest.mark.parametrize(
    ("wanted", "size", "factor", "network", "name"),
    [
        ({"factor": 2.5}, (83, 50), 2.5, 4, "x2.5"),
        ({"output_width": 50}, (50, 30), 1.5152, 2, "50x30"),
        ({"output_width": 100, "output_height": 90, "fit": "exact"}, (100, 90), 3.0303, 8, "100x90"),
    ],
)
def test_a_result_has_the_wanted_size_and_the_pixels_of_the_network_made_smaller(
    client: Client, wanted: dict[str, Any], size: tuple[int, int], factor: float, network: int, name: str
) -> None:
    data = photo("RGBA")
    made, larger = client.upscale(data, **wanted), client.upscale(data, network)
    result = made.result
    assert ((result.width, result.height), result.upscale_factor) == (size, factor)
    assert result.file_name.endswith(f"_{name}.png")
    assert np.array_equal(pixels(made), smaller(pixels(larger), size))
    assert pixels(made, "original").shape == (size[1], size[0], 4)
    assert client.status(made.job_id).upscale_factor == factor
    told = client.estimate(*SIZE, **wanted)
    assert (told.accepted, told.width, told.height) == (True, *size)


def test_sixteen_bits_stay(client: Client) -> None:
    ramp = np.repeat(np.linspace(20_000, 30_000, SIZE[0]).astype(np.uint16)[None], SIZE[1], axis=0)
    made = client.upscale(encoded(Image.fromarray(ramp), "PNG"), output_height=50)
    assert (made.result.depth, pixels(made).shape) == (16, (50, 83))
    assert len(np.unique(pixels(made))) > 80


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"output_width": 30}, "not_an_enlargement"),
        ({"output_width": 33 * 8 + 1}, "enlargement_too_large"),
        ({"output_width": 99, "output_height": 19, "fit": "exact"}, "not_an_enlargement"),
    ],
)
def test_a_size_that_cannot_be_made_fails_with_the_code_that_the_estimate_told(
    client: Client, wanted: dict[str, Any], code: str
) -> None:
    told = client.estimate(*SIZE, **wanted)
    assert (told.accepted, told.code) == (False, code)
    with pytest.raises(JobFailed) as caught:
        client.upscale(photo(), **wanted)
    assert (caught.value.code, str(caught.value)) == (code, told.detail)


def test_a_factor_and_a_size_together_are_refused(client: Client, local: Local) -> None:
    with pytest.raises(RequestRefused, match="not with upscale_factor"):
        client.submit(photo(), 4, output_width=99)
    body = {"image_base64": base64.b64encode(photo()).decode(), "output_width": 50, "upscale_factor": None}
    answer = requests.post(f"{local.url}/v1/jobs", json=body, timeout=20)
    assert answer.status_code == 202


def test_the_command_makes_sizes_and_names_results_by_them(local: Local, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo())
    for options, name, size in (
        (("--width", 50), "a_w50.png", (50, 30)),
        (("--factor", "1.5"), "a_x1.5.png", (50, 30)),
    ):
        done = upres(local, "a.png", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / name) as image:
            assert image.size == size
    assert '"skipped": 1' in upres(local, "a.png", "--width", 50, "--json", cwd=tmp_path).stdout
    told = upres(local, "a.png", "--estimate", "--height", 100, cwd=tmp_path)
    assert "165×100" in told.stdout


@pytest.mark.parametrize("wanted", [{"factor": 2.5}, {"factor": None, "output_width": 50}], ids=str)
def test_the_local_engine_makes_the_same_sizes(client: Client, tmp_path: Path, wanted: dict[str, Any]) -> None:
    (tmp_path / "a.png").write_bytes(photo())
    factor, options = (
        wanted["factor"],
        {"model": "faithful"} | {name: wanted[name] for name in wanted if name != "factor"},
    )
    made = InProcess(factor, cast("JobOptions", options)).enlarge(str(tmp_path / "a.png"), Callbacks(noop, noop))
    made.save(tmp_path / "b.png", always)
    there = client.upscale(photo(), **wanted)
    with Image.open(tmp_path / "b.png") as image:
        difference = np.asarray(image).astype(int) - pixels(there)
    assert np.abs(difference).max() <= 1
    assert made.result.upscale_factor == there.result.upscale_factor


def test_metadata_says_the_size_of_the_result(client: Client) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    data = encoded(Image.new("RGB", SIZE), "PNG", exif=exif)
    with opened(client.upscale(data, output_width=50, metadata="keep").download()) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == image.width == 50
