"""Uploads that are not what was announced: another image than the stated one, or one that is replaced later."""

import hashlib
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.images import encoded
from upres.client import Client
from upres.core.schema import Failed, Succeeded
from upres.embedded.stack import Local


def stated(image: bytes) -> dict[str, Any]:
    return {"bytes": len(image), "sha256": hashlib.sha256(image).hexdigest()}


@pytest.mark.parametrize("honest", [True, False])
def test_an_upload_that_is_not_the_stated_image_is_not_enlarged(local: Local, client: Client, honest: bool) -> None:
    """Else an Idempotency-Key could be taken in advance: who repeats it with the stated image would get another one."""
    image, other = (encoded(Image.new("RGB", (9, 9), (shade, 0, 0)), "BMP") for shade in (1, 2))
    assert len(image) == len(other)
    link = requests.post(f"{local.url}/v1/uploads", json=stated(image), timeout=20).json()
    for sent in (other, image) if honest else (image, other):  # a link may be used again while it is valid
        assert requests.put(link["upload_url"], data=sent, timeout=20).ok
    body = {"image_key": link["image_key"], "upscale_factor": 2}
    job = requests.post(f"{local.url}/v1/jobs", json=body, timeout=20).json()["job_id"]
    end = list(client.events(job))[-1]
    if honest:
        assert isinstance(end, Succeeded)
    else:
        assert isinstance(end, Failed)
        assert (end.code, end.retryable) == ("upload_not_found", False)
        assert "SHA-256" in end.message
