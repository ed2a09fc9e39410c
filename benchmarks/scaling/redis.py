"""What one job costs Redis: time of its one core, and memory for as long as its events are kept."""

from typing import Any, NamedTuple

from benchmarks.scaling.local import SIDES, Bench
from upres.core import keys

SAMPLE = 200
LEFT = ("upres:job:", "upres:work:", "upres:idempotency:")
"""What lasts longer than the job: its events, its result for identical images, and the key of its request."""
HALF = 0.5
"""Of one core: more, and waiting for it begins to be felt."""


class Cost(NamedTuple):
    """Of one job with one tile, end to end."""

    cpu_seconds: float
    bytes: float

    @property
    def jobs_a_second(self) -> float:
        """What keeps half a core of Redis busy."""
        return HALF / self.cpu_seconds

    def gigabytes(self, a_day: float) -> float:
        """For so many jobs a day, whose events are kept for a week."""
        return self.bytes * a_day * keys.EVENTS_SECONDS / keys.DAY / 1e9


def measure(bench: Bench) -> Cost:
    """By Redis's own account."""
    [worker], _ = bench.start(1, 4)
    bench.finish(bench.submit([SIDES[0]] * 10))
    before, idle = _info(bench), _idle(bench)
    bench.finish(bench.submit([SIDES[0]] * SAMPLE))
    after = _info(bench)
    worker.stop()
    cpu = after["cpu"] - before["cpu"] - idle * (after["at"] - before["at"])
    return Cost(cpu / SAMPLE, _kept(bench))


def _kept(bench: Bench) -> float:
    """Bytes of what is left of a job that has ended, with what Redis itself needs for it."""
    left = [key for prefix in LEFT for key in bench.redis.scan_iter(match=f"{prefix}*", count=1000)]
    jobs = sum(key.startswith(b"upres:job:") for key in left)
    sizes: list[Any] = [bench.redis.memory_usage(key) for key in left]
    return float(sum(size or 0 for size in sizes) / jobs)


def _info(bench: Bench) -> dict[str, float]:
    info: Any = bench.redis.info()
    seconds, microseconds = bench.redis.time()
    return {"cpu": info["used_cpu_sys"] + info["used_cpu_user"], "at": seconds + microseconds / 1e6}


def _idle(bench: Bench) -> float:
    """CPU seconds a second while nothing happens but beats: they are not the jobs'."""
    begin = _info(bench)
    bench.redis.blpop(["upres:nothing"], timeout=4)
    end = _info(bench)
    return (end["cpu"] - begin["cpu"]) / (end["at"] - begin["at"])
