"""Tells how far a job is, as events; the first that is refused ends the work."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from upres.core import events, leases, tracing
from upres.core.errors import UpresError
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.schema import Event, JobMessage, Progress, Stage, Started, now
from upres.worker import metrics
from upres.worker.engine.engine import Engine

log = logging.getLogger("upres.worker")

PERCENT: dict[Stage, float] = {"fetch": 0, "decode": 3, "upscale": 5, "encode": 85, "store": 97}
"""Where each stage begins on the way to 100; upscaling fills its part tile by tile."""


class JobEnded(Exception):
    """The job is not this worker's any more: it has ended, another attempt goes on with it, or it waits."""


def tell(connection: Redis, event: Event, lease: Lease, dead: bool = False) -> bool:
    """Append an event of a job in hand; whether it still is that (see core/events.py)."""
    if events.append(connection, event, lease.holder, dead) is None:
        return False
    metrics.EVENTS.labels(event.type).inc()
    return True


def fail(connection: Redis, lease: Lease, error: UpresError, dead: bool = False) -> None:
    """End a job in hand with an error, and say so."""
    if tell(connection, leases.failure(lease.job_id, error), lease, dead):
        tracing.failed(error.code)
        JobLog(log, lease.job_id).info("failed: %s", error.code, extra={"event": "failed", "code": error.code})


class Report:
    """Tells how far one job is, and measures it."""

    def __init__(self, job: JobMessage, connection: Redis, device: str, lease: Lease) -> None:
        self.lease = lease
        self._job = job
        self._connection, self._device = connection, device
        self._stage_began = 0.0
        self._tiles = (0, 0)
        self._resumed = 0
        self._engine: Engine | None = None
        self._tile_size = 0
        self.seconds: dict[Stage, float] = {}

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt did a part of the tiles."""
        return self._resumed > 0

    @property
    def expected_seconds(self) -> float:
        """How long all tiles take, judged by those that are done."""
        done, total = self._tiles
        fresh = done - self._resumed
        return (time.perf_counter() - self._stage_began) / fresh * total if fresh else 0

    def started(self) -> None:
        """The job was taken; `attempt` counts how often that happened."""
        job = self._job
        waited = max(0.0, (now() - job.submitted_at).total_seconds())
        metrics.ATTEMPTS.labels(job.model).inc()
        metrics.WAIT_SECONDS.observe(waited)
        self._append(
            Started(
                job_id=job.job_id,
                worker=threading.current_thread().name,
                device=self._device,
                model=job.model,
                model_version=job.model_version,
                model_digest=job.model_digest,
                attempt=self.lease.attempt,
                waited_seconds=waited,
            )
        )
        told = {"event": "started", "attempt": self.lease.attempt, "waited_seconds": round(waited, 3)}
        JobLog(log, job.job_id).info("started, attempt %d", self.lease.attempt, extra=told)

    def enlarged_by(self, engine: Engine) -> None:
        """Tiles are about to come from there."""
        self._engine, self._tile_size = engine, engine.tile

    def notice(self, text: str) -> None:
        """Something takes a while before the first stage."""
        self._progress("fetch", 0, notice=text)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Announce a stage and measure how long its block takes."""
        self._progress(stage, PERCENT[stage])
        self._stage_began = time.perf_counter()
        with tracing.span(stage):
            yield
        self.seconds[stage] = round(time.perf_counter() - self._stage_began, 4)
        metrics.STAGE_SECONDS.labels(stage, self._job.model).observe(self.seconds[stage])

    def tile(self, done: int, total: int) -> None:
        """A tile is finished; the rest of the job is expected to go on at the same pace per percent."""
        notice = self._notice(done, total)
        self._tiles = (done, total)
        per_tile = (PERCENT["encode"] - PERCENT["upscale"]) / total
        percent = PERCENT["upscale"] + per_tile * done
        pace = (time.perf_counter() - self._stage_began) / (per_tile * (done - self._resumed))
        self._progress("upscale", round(percent, 2), round(pace * (100 - percent), 2), notice)

    def _notice(self, done: int, total: int) -> str | None:
        """What is unusual since the last tile."""
        if done > self._tiles[0] + 1:
            self._resumed = done - 1
            return f"Resumed where the last attempt was: {self._resumed} of {total} tiles were done."
        before, self._tile_size = self._tile_size, self._engine.tile if self._engine else 0
        if self._tile_size < before:
            return f"The device ran short of memory; tiles are {self._tile_size} pixels now instead of {before}."
        return None

    def _progress(self, stage: Stage, percent: float, eta: float | None = None, notice: str | None = None) -> None:
        done, total = self._tiles
        self._append(
            Progress(
                job_id=self._job.job_id,
                stage=stage,
                tiles_done=done,
                tiles_total=total,
                percent=percent,
                eta_seconds=eta,
                notice=notice,
            )
        )

    def _append(self, event: Event) -> None:
        if not tell(self._connection, event, self.lease):
            raise JobEnded
