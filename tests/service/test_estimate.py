"""Tests of the estimate: size, tiles and time of a job before it runs, or the reason why it would be refused."""

from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from redis import Redis

from tests.support.images import encoded
from tests.support.paths import SAMPLES
from tests.support.servers import function
from upres.client import Client
from upres.core import api_keys, keys, rates, registry
from upres.core.rates import Rate
from upres.core.schema import Event, Progress
from upres.core.storage import Store
from upres.embedded.stack import Local


def ask(url: str, headers: dict[str, str] | None = None, **fields: Any) -> requests.Response:
    return requests.post(f"{url}/v1/estimate", json=fields, headers=headers, timeout=20)


def test_the_estimate_matches_size_tiles_and_time_of_a_real_job(
    local: Local, client: Client, redis: Redis, store: Store
) -> None:
    _, digest = registry.manifest(store, "faithful", "1")
    redis.delete(keys.rate(digest, 8))
    with Image.open(SAMPLES / "chelsea.png") as image:
        photo = encoded(image.convert("RGB").resize((200, 150)), "PNG")
    seen: list[Event] = []
    done = client.upscale(photo, 8, on_event=seen.append)
    answer = ask(local.url, width=200, height=150, upscale_factor=8).json()
    assert (answer["width"], answer["height"]) == (done.result.width, done.result.height)
    assert answer["tiles"] == max(event.tiles_total for event in seen if isinstance(event, Progress))
    assert answer["accepted"] is True
    assert answer["seconds"] == pytest.approx(sum(done.result.seconds.values()), rel=0.01)
    assert answer["slots"] > 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"width": 5000, "height": 5000}, "too_many_pixels"),
        ({"width": 600, "height": 600, "upscale_factor": 8}, "too_many_pixels"),
        ({"width": 60, "height": 60, "bytes": 2_000_000}, "too_many_bytes"),
        ({"width": 9000, "height": 100, "output_format": "webp"}, "format_limit"),
        ({"width": 10**6, "height": 10**6}, "too_many_pixels"),
    ],
)
def test_the_estimate_gives_the_error_code_of_a_refused_job(local: Local, fields: dict[str, Any], code: str) -> None:
    answer = ask(local.url, **fields).json()
    assert (answer["accepted"], answer["code"], answer["tiles"]) == (False, code, 0)
    assert answer["detail"].endswith(".")
    assert "seconds" not in answer


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"width": 0, "height": 5}, 422, "invalid_size"),
        ({"width": 5}, 422, "invalid_size"),
        ({"width": True, "height": 5}, 422, "invalid_size"),
        ({"width": 5, "height": 5, "depth": 5}, 422, "unknown_field"),
        ({"width": 5, "height": 5, "upscale_factor": 9}, 422, "unsupported_factor"),
        ({"width": 5, "height": 5, "model": "nothing"}, 422, "unknown_model"),
    ],
)
def test_an_invalid_estimate_request_is_refused(local: Local, fields: dict[str, Any], status: int, code: str) -> None:
    answer = ask(local.url, **fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_the_estimate_uses_the_quota_of_the_api_key(local: Local, redis: Redis, tmp_path: Any) -> None:
    _, text = api_keys.create(redis, "somebody", megapixels_per_day=1)
    for url in function(local, tmp_path, UPRES_ACCESS="keys"):
        headers = {"Authorization": f"Bearer {text}"}
        assert ask(url, width=10, height=10).status_code == 401
        assert ask(url, headers, width=10, height=10).json()["accepted"] is True
        assert ask(url, headers, width=300, height=300).json()["code"] == "quota_exceeded"


sizes = st.lists(st.floats(0.01, 100), min_size=1, max_size=30)


@given(sizes=sizes, base=st.floats(0, 5), slope=st.floats(0.001, 10))
def test_a_linear_relation_of_size_and_time_is_learned(sizes: list[float], base: float, slope: float) -> None:
    rate = Rate()
    for size in sizes:
        rate = rate.after(size, base + slope * size, 640)
    if max(sizes) > 1.5 * min(sizes):
        assert rate.seconds(50) == pytest.approx(base + slope * 50, rel=0.02, abs=0.05)
    assert rate.seconds(sizes[-1]) is not None


@given(jobs=st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 600)), min_size=1, max_size=30))
def test_a_predicted_time_is_never_negative(jobs: list[tuple[float, float]]) -> None:
    rate = Rate()
    for size, seconds in jobs:
        rate = rate.after(size, seconds, 640)
    for size in (0.001, 1, 100):
        assert (rate.seconds(size) or 0) >= 0


def test_predicted_times_adapt_when_jobs_become_faster(isolated_redis: Redis) -> None:
    for seconds in [10.0] * 100 + [1.0] * 100:
        rates.note(isolated_redis, "d", 4, 1_000_000, seconds, 384)
    assert rates.read(isolated_redis, "d", 4).seconds(1) == pytest.approx(1, rel=0.1)
    assert rates.read(isolated_redis, "d", 4).tile == 384
    assert rates.read(isolated_redis, "d", 2).seconds(1) is None
