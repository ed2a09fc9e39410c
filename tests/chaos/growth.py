"""Many jobs of all kinds: worker and function do not grow, and leave no process behind."""

import io
import random
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image
from redis import Redis

from tests.chaos import images
from tests.chaos.scenarios import Outcome, events_after_the_end
from upres.client import Client
from upres.embedded.stack import Local

WARM = 0.5
"""Share of the jobs after which the sizes are compared: caches are full by then."""
BATCH = 20
"""Jobs that wait at once."""
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
MEGABYTES = 96
"""Growth of a process that is still no growth: allocators keep what many threads have freed."""
HANDLES = 12
"""The same for files and threads."""


class Size(NamedTuple):
    """What a process uses: megabytes, open files, threads, and children that nobody has waited for."""

    megabytes: int
    files: int
    threads: int
    zombies: int


def size(process: psutil.Process) -> Size:
    """What a process and its children use now."""
    children = process.children(recursive=True)
    dead = sum(child.status() == psutil.STATUS_ZOMBIE for child in children)
    memory = sum(one.memory_info().rss for one in (process, *children))
    return Size(memory >> 20, process.num_fds(), process.num_threads(), dead)


def submit(client: Client, rng: random.Random, url: str) -> str:
    """Submit one job of a random kind; about one in five fails or is cancelled. Returns its id."""
    kind = rng.random()
    if kind < 0.1:  # no image, half an image, an address without one
        broken = rng.choice((b"no image", images.image(rng)[:60], f"http://{images.HOST}:1/nothing"))
        return client.submit(broken, 2).job_id
    if kind < 0.2:
        job_id = client.submit(images.image(rng), 8).job_id
        client.cancel(job_id)
        return job_id
    if kind < 0.3:
        return client.submit(f"{url}/0/{rng.getrandbits(64)}", 2).job_id
    sides = (rng.randint(8, 64), rng.randint(8, 64))
    pixels = np.random.default_rng(rng.getrandbits(64)).integers(0, 256, (*sides, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, rng.choice(FORMATS))
    factor = rng.choice((2, 4, 4, 8))
    return client.submit(out.getvalue(), factor, output_format=rng.choice(("auto", "png", "jpeg", "webp"))).job_id


def mixed(local: Local, seed: int, jobs: int) -> Outcome:
    """Run `jobs` jobs of all kinds on the stack's own worker; compare its size, and the function's, in between."""
    outcome, rng = Outcome("jobs of all kinds", {"jobs": jobs}), random.Random(seed)
    parts = {name: local.children[name].process for name in ("function", "worker")}
    before: dict[str, Size] = {}
    redis = Redis.from_url(local.settings.redis_url)
    with Client(local.url) as client, images.serving() as url:
        for number in range(0, jobs, BATCH):
            ids = [submit(client, rng, url) for _ in range(min(BATCH, jobs - number))]
            received = events_after_the_end(redis, ids, 120)
            outcome.faults += [f"{job_id} hangs" for job_id, seen in received.items() if seen[-1].type == "progress"]
            if not before and number + BATCH >= jobs * WARM:
                before = {name: size(part) for name, part in parts.items()}
    for name, part in parts.items():
        compare(outcome, name, before[name], size(part))
    return outcome


def compare(outcome: Outcome, name: str, before: Size, after: Size) -> None:
    """Note both sizes, and a fault for each thing that has grown."""
    outcome.seen[name] = f"{before.megabytes} → {after.megabytes} MB, {after.files} files, {after.threads} threads"
    allowed = Size(before.megabytes + MEGABYTES, before.files + HANDLES, before.threads + HANDLES, 0)
    for what, now, most in zip(Size._fields, after, allowed, strict=True):
        if now > most:
            outcome.faults.append(f"{name}: {now} {what} after all jobs, at most {most} were expected")
