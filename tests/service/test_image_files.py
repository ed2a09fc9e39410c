"""Image files of unusual kinds through the complete system."""

import numpy as np
import pytest
from PIL import Image

from tests.support.encoders import jpegxl_encode
from tests.support.heic_files import heic
from tests.support.images import encoded, opened, psnr
from upres.client import Client
from upres.core.schema import Progress


def test_what_is_wrong_with_a_file_is_told_while_it_is_enlarged(client: Client, photo: Image.Image) -> None:
    upscaled = client.upscale(encoded(photo, "JPEG")[:-2], 2)
    said = [
        (one.stage, one.notice) for one in client.events(upscaled.job_id) if isinstance(one, Progress) and one.notice
    ]
    assert [stage for stage, _ in said] == ["decode"]
    assert "end of the JPEG file is missing" in (said[0][1] or "")


@pytest.mark.parametrize("kind", ["HEIC", "JPEG XL"])
def test_kinds_that_pillow_does_not_read_are_enlarged(client: Client, photo: Image.Image, kind: str) -> None:
    pixels = np.asarray(photo)
    upscaled = client.upscale(heic(pixels) if kind == "HEIC" else jpegxl_encode(pixels, lossless=True), 2)
    plain = opened(client.upscale(encoded(photo, "PNG"), 2).download())
    assert psnr(opened(upscaled.download()), plain) > 30
