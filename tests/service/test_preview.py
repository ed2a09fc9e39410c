"""Previews of a running job: its finished tiles as small JPEG images, in Redis and through the API."""

import base64
import io
from typing import cast

import numpy as np
import pytest
import requests
from PIL import Image
from redis import Redis

from tests.conftest import Post
from tests.support.images import encoded
from tests.support.leasing import submit, taken
from tests.support.paths import SAMPLES
from upres.client import Client
from upres.core import keys
from upres.core.api import PreviewTile
from upres.core.leases import Lease
from upres.core.schema import Progress
from upres.embedded.stack import Local
from upres.worker.preview import SIDE, Preview


@pytest.fixture
def lease(isolated_redis: Redis) -> Lease:
    """The lease of a submitted job; the test holds it, no worker process runs the job."""
    submit(isolated_redis)
    return taken(isolated_redis)


def shown(redis: Redis, job_id: str) -> list[PreviewTile]:
    """The preview tiles of a job that Redis has now."""
    pieces = cast("list[bytes]", redis.lrange(keys.preview(job_id), 0, -1))
    return [PreviewTile.model_validate_json(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("size", "shown_as"),
    [
        ((5000, 3001), (5000, 3001)),
        ((300, 200), (300, 200)),
        ((17, 4001), (17, 4001)),
        ((5000, 3001), (4100, 1300)),
        ((1200, 800), (900, 700)),
    ],
)
def test_preview_tiles_cover_the_image_once_and_resemble_it(
    isolated_redis: Redis, lease: Lease, size: tuple[int, int], shown_as: tuple[int, int]
) -> None:
    with Image.open(SAMPLES / "chelsea.png") as image:
        whole = np.asarray(image.convert("RGB").resize(size))
    preview = Preview(isolated_redis, lease, size, shown_as)
    for top in range(0, size[1], 700):
        for left in range(0, size[0], 900):
            preview.add(top, left, whole[top : top + 700, left : left + 900])
    pieces = shown(isolated_redis, lease.job_id)
    canvas = Image.new("RGB", (pieces[0].of_width, pieces[0].of_height), "magenta")
    covered = np.zeros(canvas.size[::-1], int)
    for piece in pieces:
        data = base64.b64decode(piece.image.partition(",")[2])
        canvas.paste(Image.open(io.BytesIO(data)), (piece.x, piece.y))
        covered[piece.y : piece.y + piece.height, piece.x : piece.x + piece.width] += 1
    assert (covered == 1).all()
    assert max(canvas.size) == min(SIDE, max(shown_as))
    assert canvas.width / canvas.height == pytest.approx(shown_as[0] / shown_as[1], rel=0.2 if 17 in size else 0.01)
    difference = np.asarray(canvas, float) - np.asarray(Image.fromarray(whole).resize(canvas.size), float)
    assert np.mean(np.abs(difference)) < 6
    assert sum(len(piece.image) for piece in pieces) < 500_000


def test_new_attempt_deletes_old_previews_and_void_token_adds_none(isolated_redis: Redis, lease: Lease) -> None:
    piece = np.zeros((4, 4, 3), np.uint8)
    Preview(isolated_redis, lease, (8, 8), (8, 8)).add(0, 0, piece)
    Preview(isolated_redis, lease, (8, 8), (8, 8)).add(4, 4, piece)
    assert [(one.x, one.y) for one in shown(isolated_redis, lease.job_id)] == [(4, 4)]
    late = Preview(isolated_redis, lease._replace(holder="somebody else"), (8, 8), (8, 8))
    late.add(0, 0, piece)
    assert len(shown(isolated_redis, lease.job_id)) == 1
    assert 0 < int(str(isolated_redis.ttl(keys.preview(lease.job_id)))) <= keys.PREVIEW_SECONDS


def test_api_returns_preview_tiles_only_while_the_job_runs(local: Local, client: Client, post: Post) -> None:
    with Image.open(SAMPLES / "chelsea.png") as image:
        photo = encoded(image.convert("RGB").resize((300, 200)), "PNG")
    job = post(image_base64=base64.b64encode(photo).decode(), upscale_factor=8, preview=True).json()
    seen = 0
    for event in client.events(job["job_id"]):
        if isinstance(event, Progress) and event.stage == "upscale":
            tiles = requests.get(f"{job['status_url']}/preview?after={seen}", timeout=20).json()["tiles"]
            assert all(tile["image"].startswith("data:image/jpeg;base64,") for tile in tiles)
            seen += len(tiles)
    assert seen >= 2
    assert requests.get(f"{job['status_url']}/preview", timeout=20).json() == {"tiles": []}


def test_no_previews_are_stored_if_the_job_did_not_request_them(
    client: Client, redis: Redis, post: Post, png: bytes
) -> None:
    job_id = post(image_base64=base64.b64encode(png).decode()).json()["job_id"]
    for _ in client.events(job_id):
        assert not redis.exists(keys.preview(job_id))


@pytest.mark.parametrize("after", ["-1", "x", "1" * 20])
def test_preview_request_with_an_invalid_after_gets_422(local: Local, post: Post, png: bytes, after: str) -> None:
    job = post(image_base64=base64.b64encode(png).decode()).json()
    answer = requests.get(f"{job['status_url']}/preview", params={"after": after}, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_after")
