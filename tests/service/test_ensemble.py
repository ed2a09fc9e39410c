"""Jobs with `ensemble`: their tiles, results, estimates, and what tells them from other jobs."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from redis import Redis

from tests.conftest import Post
from tests.support.command import upres
from tests.support.images import encoded
from tests.support.paths import SAMPLES
from upres.client import Client
from upres.core import keys, rates, registry
from upres.core.schema import Event, Progress
from upres.core.storage import Store
from upres.embedded.stack import Local


@pytest.fixture(scope="module")
def photo() -> bytes:
    with Image.open(SAMPLES / "chelsea.png") as image:
        return encoded(image.convert("RGB").crop((100, 50, 148, 86)), "PNG")


def test_a_job_with_ensemble_counts_eight_tiles_and_shares_no_result_with_others(client: Client, photo: bytes) -> None:
    seen: list[Event] = []
    plain = client.upscale(photo, 2)
    better = client.upscale(photo, 2, ensemble=True, on_event=seen.append)
    again = client.upscale(photo, 2, ensemble=True)
    assert max(event.tiles_total for event in seen if isinstance(event, Progress)) == 8
    assert (plain.result.ensemble, better.result.ensemble) == (False, True)
    assert better.result.sr_image_uri == again.result.sr_image_uri != plain.result.sr_image_uri
    one, other = (np.asarray(Image.open(io.BytesIO(job.download()))).astype(int) for job in (plain, better))
    assert 0 < np.abs(one - other).max() < 40


def test_the_estimate_tells_eight_times_the_tiles_and_the_time(client: Client, redis: Redis, store: Store) -> None:
    _, digest = registry.manifest(store, "faithful", "1")
    redis.delete(keys.rate(digest, 4), keys.rate(digest, 4, True))
    rates.note(redis, digest, 4, 1_000_000, 2.0, 640)
    plain, better = (client.estimate(250, 250, ensemble=ensemble) for ensemble in (False, True))
    assert (plain.tiles, better.tiles) == (1, 8)
    assert (plain.seconds, better.seconds) == (2, 16)
    rates.note(redis, digest, 4, 1_000_000, 12.0, 640, ensemble=True)
    assert (client.estimate(250, 250).seconds, client.estimate(250, 250, ensemble=True).seconds) == (2, 12)
    redis.delete(keys.rate(digest, 4), keys.rate(digest, 4, True))


def test_an_ensemble_that_is_not_true_or_false_is_refused(local: Local, post: Post) -> None:
    for answer in (
        post(image_url="https://example.org/a.png", ensemble="yes"),
        requests.post(f"{local.url}/v1/estimate", json={"width": 5, "height": 5, "ensemble": 8}, timeout=20),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_ensemble")


def test_the_command_takes_the_option_and_does_not_mix_results(local: Local, photo: bytes, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(photo)
    made = []
    for options, skipped in ((), 0), (["--ensemble"], 0), (["--ensemble"], 1):
        done = upres(local, "cat.png", "--factor", 2, "--out", "big", "--json", *options, cwd=tmp_path)
        assert json.loads(done.stdout.splitlines()[-1])["summary"]["skipped"] == skipped
        made.append((tmp_path / "big" / "cat_x2.png").read_bytes())
    assert made[0] != made[1] == made[2]
    local_options = ["--local", "--model", "faithful", "--factor", 2, "--out", "here", "--ensemble"]
    assert upres(None, "cat.png", *local_options, cwd=tmp_path).returncode == 0
    assert (tmp_path / "here" / "cat_x2.png").read_bytes() == made[1]
    for options, tiles in ((), 1), (["--ensemble"], 8):
        told = upres(local, "--estimate", "--json", "cat.png", *options, cwd=tmp_path)
        assert json.loads(told.stdout.splitlines()[0])["tiles"] == tiles
