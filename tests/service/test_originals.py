"""The original of a result, its bicubic enlargement: made when somebody asks for it first, and once; or at once."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from redis import Redis

from tests.support.images import opened
from tests.support.leasing import submit, taken
from upres.client import Client, RequestRefused
from upres.core import keys
from upres.core.queue import open_queue, read_message
from upres.core.schema import Failed, Result
from upres.embedded.stack import Local


def bicubic(png: bytes, factor: int) -> Any:
    image = opened(png).convert("RGB")
    return np.asarray(image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC))


def key_of(local: Local, result: Result) -> str:
    return local.store.key(result.original_image_uri)


def jobs(redis: Redis) -> int:
    return len(redis.keys("upres:job:*:events"))


def test_the_first_request_makes_it_and_later_ones_find_it(
    local: Local, client: Client, redis: Redis, png: bytes
) -> None:
    job = client.upscale(png, 2)
    result, before = job.result, jobs(redis)
    assert result.original == "lazy"
    assert not local.store.exists(key_of(local, result))
    answers = [requests.get(result.original_image_url, timeout=30) for _ in range(2)]
    answers.append(requests.get(f"{local.url}/v1/jobs/{job.job_id}/original", timeout=30))
    for answer in answers:
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.history[0].headers["Cache-Control"] == "no-store"
        assert "bicubic_" in answer.headers["Content-Disposition"]
        assert (np.asarray(opened(answer.content)) == bicubic(png, 2)).all()
    assert local.store.get(key_of(local, result)) == answers[0].content
    assert jobs(redis) == before + 1
    assert client.status(job.job_id).result == result


def test_many_requests_at_once_make_it_once_for_all_identical_jobs(client: Client, redis: Redis, png: bytes) -> None:
    first, twin = client.upscale(png, 4).result, client.upscale(png, 4).result
    assert first.original_image_uri == twin.original_image_uri
    addresses, before = [first.original_image_url, twin.original_image_url] * 6, jobs(redis)
    with ThreadPoolExecutor(len(addresses)) as threads:
        files = [one.content for one in threads.map(lambda url: requests.get(url, timeout=30), addresses)]
    assert len({hashlib.sha256(file).digest() for file in files}) == 1
    assert (np.asarray(opened(files[0])) == bicubic(png, 4)).all()
    assert jobs(redis) == before + 1


@pytest.mark.parametrize(
    "options", [{"output_width": 90}, {"output_format": "webp", "quality": 40}, {"output_format": "tiff"}]
)
def test_it_is_made_with_the_options_of_the_result(client: Client, png: bytes, options: Any) -> None:
    factor = None if "output_width" in options else 2
    lazy, eager = (client.upscale(png, factor, **options, original=mode) for mode in ("lazy", "eager"))
    assert (lazy.result.original, eager.result.original) == ("lazy", "eager")
    files = {eager.download("original"), lazy.download("original"), client.download(lazy.job_id, "original")}
    assert len(files) == 1
    assert opened(files.pop()).size == opened(lazy.download()).size


def test_eager_gives_a_presigned_url_at_once_also_after_a_lazy_one(local: Local, client: Client, png: bytes) -> None:
    lazy, eager, after = (client.upscale(png, 2, original=mode).result for mode in ("lazy", "eager", "lazy"))
    assert lazy.original_image_uri != eager.original_image_uri == after.original_image_uri
    assert (eager.original, after.original) == ("eager", "eager")
    for result in (eager, after):
        assert result.original_image_url.startswith(str(local.settings.s3_endpoint_url))
        answer = requests.get(result.original_image_url, timeout=10, allow_redirects=False)
        assert (np.asarray(opened(answer.content)) == bicubic(png, 2)).all()


def test_a_job_of_an_older_function_makes_it_eagerly(local: Local, client: Client, redis: Redis, png: bytes) -> None:
    image_key = keys.new_upload()
    local.store.put(image_key, png)
    result = client.wait(submit(redis, image_key=image_key, upscale_factor=2), timeout=60)
    assert result.original == "eager"
    assert (np.asarray(opened(client.download(result, "original"))) == bicubic(png, 2)).all()


def test_an_older_worker_does_not_see_what_it_may_ignore(isolated_redis: Redis) -> None:
    """It reads the only positional argument of RQ's record, and refuses a field that it does not know."""
    address = "http://upres/v1/jobs/x/original"
    submit(isolated_redis, original_url=address)
    lease = taken(isolated_redis)
    queue: Any = open_queue(isolated_redis)
    [given] = queue.fetch_job(lease.job_id).args
    assert "original_url" not in given
    assert read_message(lease.job_id, lease.record).original_url == address


@pytest.mark.parametrize("said", ["is not kept any more", "is damaged"])
def test_a_source_that_is_gone_or_damaged_is_said(local: Local, client: Client, png: bytes, said: str) -> None:
    job = client.upscale(png, 2)
    source = keys.source(key_of(local, job.result))
    if said == "is damaged":
        local.store.put(source, local.store.get(source)[:-1])
    else:
        local.store.delete([source])
    for given in (job.job_id, job.result):
        with pytest.raises(RequestRefused, match=f"{said}.*submit it again") as refused:
            client.download(given, "original")
        assert refused.value.code == "no_result"
        assert not refused.value.retryable


@pytest.mark.parametrize("key", [f"results/other/{'0' * 32}/1/original.png", "models/faithful/1/manifest.json", "a"])
def test_a_worker_makes_no_original_in_another_place(client: Client, redis: Redis, key: str) -> None:
    job_id = submit(redis, image_key=None, original_key=key)
    [*_, (_, last)] = client.follow(job_id)
    assert isinstance(last, Failed)
    assert last.code == "job_refused"
