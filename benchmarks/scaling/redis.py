"""The cost of a job in Redis: CPU time of its single core, and memory while its events are kept."""

from typing import Any, NamedTuple

from benchmarks.scaling.local import SIDES, Bench
from upres.core import keys

SAMPLE = 200
"""Number of jobs over which CPU time is measured."""
LEFT = ("upres:job:", "upres:work:", "upres:idempotency:")
"""Prefixes of keys that outlive a job: events, the result for identical images, and the Idempotency-Key."""
HALF = 0.5
"""Share of a core that Redis may use; at a higher load, commands begin to wait noticeably."""


class Cost(NamedTuple):
    """The cost of one job with one tile, from submission to its end."""

    cpu_seconds: float
    bytes: float

    @property
    def jobs_a_second(self) -> float:
        """Jobs per second that use half a core of Redis."""
        return HALF / self.cpu_seconds

    def gigabytes(self, a_day: float) -> float:
        """Gigabytes of memory for `a_day` jobs per day, for as long as events are kept (a week)."""
        return self.bytes * a_day * keys.EVENTS_SECONDS / keys.DAY / 1e9


def measure(bench: Bench) -> Cost:
    """Measure CPU time and memory as reported by Redis."""
    [worker], _ = bench.start(1, 4)
    bench.finish(bench.submit([SIDES[0]] * 10))
    before, idle = _info(bench), _idle(bench)
    bench.finish(bench.submit([SIDES[0]] * SAMPLE))
    after = _info(bench)
    worker.stop()
    cpu = after["cpu"] - before["cpu"] - idle * (after["at"] - before["at"])
    return Cost(cpu / SAMPLE, _kept(bench))


def _kept(bench: Bench) -> float:
    """Bytes of the keys that remain per ended job, with the overhead of Redis."""
    left = [key for prefix in LEFT for key in bench.redis.scan_iter(match=f"{prefix}*", count=1000)]
    jobs = sum(key.startswith(b"upres:job:") for key in left)
    sizes: list[Any] = [bench.redis.memory_usage(key) for key in left]
    return float(sum(size or 0 for size in sizes) / jobs)


def _info(bench: Bench) -> dict[str, float]:
    info: Any = bench.redis.info()
    seconds, microseconds = bench.redis.time()
    return {"cpu": info["used_cpu_sys"] + info["used_cpu_user"], "at": seconds + microseconds / 1e6}


def _idle(bench: Bench) -> float:
    """CPU seconds per second without jobs, caused by heartbeats of workers; not part of the cost of a job."""
    begin = _info(bench)
    bench.redis.blpop(["upres:nothing"], timeout=4)
    end = _info(bench)
    return (end["cpu"] - begin["cpu"]) / (end["at"] - begin["at"])
