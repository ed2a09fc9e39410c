"""`python python_caller.py SUBMIT_URL FOLLOW_URL COUNT SEED`: uses the client of whatever release Python finds.

It submits jobs to one function and follows them at another, repeats each submission, cancels every fourth job, and
prints how the jobs ended: {"succeeded": 3, "cancelled": 1}.
"""

import asyncio
import io
import json
import sys
from collections import Counter

import numpy as np
from PIL import Image

from upres.client import AsyncClient, Client
from upres.client.errors import JobCancelled


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def one_job(here: Client, there: Client, seed: int, cancelled: bool) -> str:
    image = picture(seed)
    job = here.submit(image, 2, idempotency_key=f"key {seed}")
    again = here.submit(image, 2, idempotency_key=f"key {seed}")
    assert again.job_id == job.job_id
    if cancelled:
        there.cancel(job.job_id)
    types = [event.type for event in there.events(job.job_id)]
    assert (types[0], types[-1]) in (("queued", "succeeded"), ("queued", "cancelled")), types
    try:
        result = there.wait(job.job_id)
    except JobCancelled:
        assert there.status(job.job_id).status == "cancelled"
        return "cancelled"
    assert (result.width, result.height) == (128, 96)
    with Image.open(io.BytesIO(there.download(result))) as enlarged:
        assert enlarged.size == (128, 96)
    return types[-1]


async def without_threads(url: str, seed: int) -> str:
    async with AsyncClient(url) as client:
        done = await client.upscale(picture(seed), 2)
        assert (done.result.width, done.result.height) == (128, 96)
        return "succeeded"


def main() -> None:
    submit_url, follow_url, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with Client(submit_url) as here, Client(follow_url) as there:
        here.check()
        assert there.estimate(64, 48, 2).accepted
        ends = Counter(one_job(here, there, seed + number, number % 4 == 3) for number in range(count))
    ends[asyncio.run(without_threads(submit_url, seed + count))] += 1
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
