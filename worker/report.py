"""Publishes the progress of a job as events. When Redis refuses one, the worker stops its work on the job."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from redis import Redis
from redis.exceptions import RedisError

from upres.core import events, leases, tracing
from upres.core.errors import UpresError
from upres.core.job_message import JobMessage, JobModel
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.schema import Event, Progress, Result, Stage, Started, Succeeded, now
from upres.worker import metrics
from upres.worker.engine.engine import Engine
from upres.worker.outbox import Outbox, OutboxThread

log = logging.getLogger("upres.worker")

PERCENT: dict[Stage, float] = {"fetch": 0, "decode": 3, "upscale": 5, "encode": 85, "store": 97}
"""Percent at which each stage begins. Within `upscale` the percentage grows with each tile."""


class JobEnded(Exception):
    """The worker must stop its work on the job, which has ended, has another holder, or waits for an identical one."""


def publish(connection: Redis, event: Event, lease: Lease, dead: bool = False, busy: bool = False) -> bool:
    """Append an event of a job that this worker holds (core/events.py). Returns False when it does not hold the job."""
    if events.append(connection, event, lease.holder, dead, busy) is None:
        return False
    metrics.EVENTS.labels(event.type).inc()
    return True


def publish_failure(connection: Redis, lease: Lease, error: UpresError, dead: bool = False, busy: bool = False) -> None:
    """End a job that this worker holds with an error. `dead`: as a dead letter; `busy`: a slot still runs it."""
    if publish(connection, leases.failure(lease.job_id, error), lease, dead, busy):
        tracing.failed(error.code)
        JobLog(log, lease.job_id).info("failed: %s", error.code, extra={"event": "failed", "code": error.code})


class Report:
    """Publishes the progress of one job, and measures its stages. Methods raise JobEnded if Redis refuses an event.

    Events that follow each other within milliseconds are published together (worker/outbox.py).
    """

    def __init__(
        self, job: JobMessage, connection: Redis, device: str, lease: Lease, outbox_thread: OutboxThread
    ) -> None:
        self.lease = lease
        self._job = job
        self._outbox = Outbox(connection, lease, outbox_thread)
        self.on_success: Callable[[], object] = lambda: None
        """Called after the event that says that the job has succeeded: nobody waits for it."""
        self._connection, self._device = connection, device
        self._stage_began = 0.0
        self._tiles = (0, 0)
        self._tiles_of_others = 0
        self._frame: int | None = None
        self._frames: int | None = None
        self._engine: Engine | None = None
        self._tile_size = 0
        self._at_work: JobModel | None = None
        self.seconds: dict[Stage, float] = {}

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt did a part of the tiles."""
        return self._tiles_of_others > 0

    @property
    def expected_seconds(self) -> float:
        """Estimated seconds for all tiles of the job, from those that this attempt has done; 0 before the first."""
        done, total = self._tiles
        own = done - self._tiles_of_others
        return (time.perf_counter() - self._stage_began) / own * total if own else 0

    def started(self) -> None:
        """Publish that this worker took the job."""
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
        fields = {"event": "started", "attempt": self.lease.attempt, "waited_seconds": round(waited, 3)}
        JobLog(log, job.job_id).info("started, attempt %d", self.lease.attempt, extra=fields)

    @contextmanager
    def complete(self) -> Iterator[None]:
        """When the block raises an error of the job or of this worker, publish first what waits to be published."""
        try:
            yield
        except (JobEnded, RedisError):
            raise
        except Exception:
            with suppress(RedisError):  # the block's own error says more: the device may be lost
                self._outbox.publish()
            raise

    def publish_waiting(self) -> None:
        """Publish what waits to be published: another event may follow that does not come from this object."""
        if not self._outbox.publish():
            raise JobEnded

    def succeeded(self, result: Result) -> bool:
        """End the job with its result. Returns False when this worker does not hold the job any more."""
        return self._outbox.publish(Succeeded(job_id=self._job.job_id, result=result))

    def notice(self, text: str, stage: Stage = "fetch") -> None:
        """Publish a sentence for the user, at the beginning of a stage."""
        self._progress(stage, PERCENT[stage], notice=text)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Publish the beginning of a stage, and measure how long its block takes."""
        self._progress(stage, PERCENT[stage])
        self._stage_began = time.perf_counter()
        with tracing.span(stage):
            yield
        self.seconds[stage] = round(time.perf_counter() - self._stage_began, 4)
        metrics.STAGE_SECONDS.labels(stage, self._job.model).observe(self.seconds[stage])

    def works_with(self, model: JobModel) -> None:
        """Note that this model is loaded or computes from now on: if it is a canary, a failure counts for it."""
        if model != self._at_work:
            leases.at_work(self._connection, self.lease, model.name, model.digest)
            self._at_work = model

    def upscaling(self, engine: Engine) -> None:
        """Set the engine that computes the next tiles, so that `tile` notices when its tile size shrinks."""
        self._engine, self._tile_size = engine, engine.tile

    def has_frames(self, count: int) -> None:
        """Set the number of frames or pages; a single one is not mentioned."""
        self._frames = count if count > 1 else None

    def frame(self, number: int) -> None:
        """Set the number of the frame or page, from 1, that is enlarged now."""
        self._frame = number if self._frames else None

    def resuming(self, done: int, total: int) -> None:
        """Publish how many of all tiles an earlier attempt has done."""
        self._tiles, self._tiles_of_others = (done, total), done
        notice = f"Resumed where the last attempt was: {done} of {total} tiles were done."
        self._progress("upscale", round(self._percent(done, total), 2), notice=notice)

    def tile(self, done: int, total: int) -> None:
        """Publish a finished tile, with the estimated seconds until the job ends."""
        self._tiles = (done, total)
        percent = self._percent(done, total)
        gained = percent - self._percent(self._tiles_of_others, total)
        eta = (time.perf_counter() - self._stage_began) / gained * (100 - percent)
        self._progress("upscale", round(percent, 2), round(eta, 2), self._shrunk())

    def _percent(self, done: int, total: int) -> float:
        return PERCENT["upscale"] + (PERCENT["encode"] - PERCENT["upscale"]) * done / total

    def _shrunk(self) -> str | None:
        """Return a notice when the engine's tile size has become smaller since the last tile, else None."""
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
                frame=self._frame,
                frames=self._frames,
                percent=percent,
                eta_seconds=eta,
                notice=notice,
            )
        )

    def _append(self, event: Event) -> None:
        if not self._outbox.add(event):
            raise JobEnded
