"""An animation whose worker is killed in the middle is continued in the right frame."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from redis import Redis

from tests.support.animations import PngFrame, apng
from tests.support.paths import SAMPLES
from tests.support.waiting import wait_until
from tests.support.workers import SHORT_LEASES, worker
from upres.client import Client
from upres.core import keys
from upres.core.schema import Event, Progress
from upres.embedded.stack import Local
from upres.worker.imaging import images

pytestmark = pytest.mark.without_worker
SLOW, KEPT = "--pause-seconds=0.3", "--long-seconds=0.01"
"""Flags of the worker: each tile takes a while, and every job has checkpoints."""
FACTOR, HEIGHT = 2, 36


@pytest.fixture
def client(local: Local) -> Iterator[Client]:
    with Client(local.url) as connected:
        yield connected


def moving(number: int) -> bytes:
    """An animation of eight frames, which differs for each number."""
    with Image.open(SAMPLES / "coffee.png") as image:
        photo = np.asarray(image.convert("RGB").crop((200, 150, 264, 150 + HEIGHT)))
    frames = [np.roll(photo, 5 * step, axis=1) for step in range(8)]
    frames[0] = frames[0].copy()
    frames[0][0, 0] = number
    return apng([PngFrame(frame) for frame in frames])


def rows_kept(redis: Redis, job_id: str) -> int:
    """The number of rows, over all frames, that have a checkpoint."""
    parts = (cast("bytes | None", redis.hget(keys.run(job_id), "parts")) or b"0-0").decode()
    return int(parts.rpartition("-")[2])


def pixels(data: bytes) -> npt.NDArray[np.int64]:
    return np.stack([frame.pixels for frame in images.decode_all(data, 10**6).frames]).astype(int)


def test_another_worker_continues_in_the_frame_in_which_a_worker_was_killed(
    local: Local, client: Client, redis: Redis
) -> None:
    with worker(local, *SHORT_LEASES, SLOW, KEPT) as first:
        job_id = client.submit(moving(1), FACTOR).job_id
        wait_until(lambda: rows_kept(redis, job_id) >= 2 * FACTOR * HEIGHT)
        first.kill()
    kept = rows_kept(redis, job_id) // (FACTOR * HEIGHT)
    with worker(local, *SHORT_LEASES):
        seen: list[Event] = list(client.events(job_id))
        whole = client.upscale(moving(2), FACTOR).download()
    assert seen[-1].type == "succeeded"
    [resumed] = [event for event in seen if isinstance(event, Progress) and event.notice]
    assert resumed.notice == f"Resumed where the last attempt was: {kept} of 8 tiles were done."
    frames = [event.frame for event in seen[seen.index(resumed) + 1 :] if isinstance(event, Progress) and event.frame]
    assert frames[0] == kept + 1
    assert max(frames) == 8
    difference = np.abs(pixels(client.download(job_id)) - pixels(whole))
    assert difference[1:].max() <= 1
    assert difference[0, 20:].max() <= 1  # the numbers differ in the corner
