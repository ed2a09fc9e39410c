"""The pipeline of one job: fetch → decode → upscale → encode → store, each step told as an event."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from redis import Redis
from rq.job import Job
from rq.timeouts import JobTimeoutException

from core import events, keys
from core.errors import DeviceLost, TimedOut, TooManyBytes, UnknownModel, UploadNotFound, UpresError, WorkerLost
from core.schema import Event, Failed, JobMessage, OutputFormat, Progress, Result, Stage, Started, Succeeded, now
from core.settings import Settings
from core.storage import ObjectNotFound, Store
from worker import images
from worker.encode import Encoders
from worker.engine import Engine
from worker.fetch import fetch
from worker.registry import Model

log = logging.getLogger("upres.worker")

PERCENT: dict[Stage, float] = {"fetch": 0, "decode": 3, "upscale": 5, "encode": 85, "store": 97}
"""Where each stage begins on the way to 100; upscaling fills its part tile by tile."""


class Parts(NamedTuple):
    """What a worker has when it takes jobs, the same for all of them."""

    connection: Redis
    store: Store
    engine: Engine
    encoders: Encoders
    model: Model
    settings: Settings
    device: str


class JobEnded(Exception):
    """The job has a terminal event already: somebody cancelled it."""


def run(parts: Parts, message: dict[str, Any]) -> None:
    """Do one job and say how it ended.

    Raises when that could not be told, or when the device is lost: then RQ puts the job back.
    """
    job = JobMessage.model_validate(message)
    try:
        result = _process(job, parts, Report(job, parts))
    except JobEnded:
        log.info("job %s was cancelled", job.job_id)
    except DeviceLost:
        raise
    except Exception as error:
        _fail(job, parts, error)
    else:
        if events.append(parts.connection, Succeeded(job_id=job.job_id, result=result)):
            log.info("job %s succeeded: %d×%d", job.job_id, result.width, result.height)


def _process(job: JobMessage, parts: Parts, report: "Report") -> Result:
    report.started()
    if job.model != parts.model.manifest.name:
        raise UnknownModel(f"Model {job.model!r} is not served here; use {parts.model.manifest.name!r}.")
    factor = job.upscale_factor
    with report.stage("fetch"):
        data = _fetch(job, parts)
    with report.stage("decode"):
        picture = images.decode(data, parts.settings.max_input_pixels(factor))
        format = picture.format if job.output_format == "auto" else job.output_format
        size = (picture.size[0] * factor, picture.size[1] * factor)
        images.check_size(size, format)
    put = partial(parts.store.put, content_type=images.CONTENT_TYPES[format])
    sr_key, original_key = _keys(job, format)
    with report.stage("upscale"):
        original = parts.encoders.original(picture, factor, format, partial(put, original_key))
        encoder = parts.encoders.open(picture, factor, format)
        for band in parts.engine.bands(picture.pixels, factor, report.tile):
            encoder.write(band)
    with report.stage("encode"):
        sr = encoder.finish()
    with report.stage("store"):
        put(sr_key, sr)
        original.result()
    return _result(job, parts, size, format, report.seconds)


def _result(
    job: JobMessage, parts: Parts, size: tuple[int, int], format: OutputFormat, seconds: dict[Stage, float]
) -> Result:
    sr, original = _keys(job, format)
    file_name = f"{_stem(job)}_x{job.upscale_factor}.{images.EXTENSIONS[format]}"
    return Result(
        sr_image_url=parts.store.presign(sr, file_name),
        sr_image_uri=parts.store.uri(sr),
        original_image_url=parts.store.presign(original, f"bicubic_{file_name}"),
        original_image_uri=parts.store.uri(original),
        upscale_factor=job.upscale_factor,
        width=size[0],
        height=size[1],
        format=format,
        file_name=file_name,
        model=parts.model.manifest.name,
        model_digest=parts.model.digest,
        device=parts.device,
        seconds=seconds,
    )


def _keys(job: JobMessage, format: OutputFormat) -> tuple[str, str]:
    """Where the enlarged image and its bicubic enlargement go."""
    extension = images.EXTENSIONS[format]
    return keys.result(job.job_id, extension), keys.original(job.job_id, extension)


def _fetch(job: JobMessage, parts: Parts) -> bytes:
    """The image file, from the store or from its URL."""
    limit = parts.settings.max_input_bytes
    if job.image_url is not None:
        return fetch(job.image_url, limit, parts.settings.fetch_private_networks)
    try:
        data = parts.store.get(job.image_key or "", limit)
    except ObjectNotFound as error:
        raise UploadNotFound(f"image_key: there is no upload {job.image_key}; upload the image first.") from error
    if len(data) > limit:
        raise TooManyBytes(f"The image file is larger than {limit / 1e6:g} MB; send a smaller file.")
    return data


def _stem(job: JobMessage) -> str:
    """What to call the result: as the image was called, as far as that can be printed."""
    name = job.image_name or unquote(urlsplit(job.image_url or "").path)
    return "".join(filter(str.isprintable, PurePath(name).stem)) or job.job_id


class Report:
    """Tells how far one job is, and measures it."""

    def __init__(self, job: JobMessage, parts: Parts) -> None:
        self._job = job
        self._parts = parts
        self._stage_began = 0.0
        self._tiles = (0, 0)
        self._tile_size = parts.engine.tile
        self.seconds: dict[Stage, float] = {}

    def started(self) -> None:
        """The job was taken; `attempt` counts how often that happened."""
        job, parts = self._job, self._parts
        earlier = events.read(parts.connection, job.job_id)
        self._append(
            Started(
                job_id=job.job_id,
                worker=threading.current_thread().name,
                device=parts.device,
                model=parts.model.manifest.name,
                model_digest=parts.model.digest,
                attempt=1 + sum(event.type == "started" for _, event in earlier),
                waited_seconds=max(0.0, (now() - job.submitted_at).total_seconds()),
            )
        )

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Announce a stage and measure how long its block takes."""
        self._progress(stage, PERCENT[stage])
        self._stage_began = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - self._stage_began, 4)

    def tile(self, done: int, total: int) -> None:
        """A tile is finished; the rest of the job is expected to go on at the same pace per percent."""
        self._tiles = (done, total)
        gained = (PERCENT["encode"] - PERCENT["upscale"]) * done / total
        percent = PERCENT["upscale"] + gained
        eta = (time.perf_counter() - self._stage_began) / gained * (100 - percent)
        self._progress("upscale", round(percent, 2), round(eta, 2), self._notice())

    def _notice(self) -> str | None:
        """That the device ran short of memory since the last tile."""
        before, self._tile_size = self._tile_size, self._parts.engine.tile
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
        if events.append(self._parts.connection, event) is None:
            raise JobEnded


def _fail(job: JobMessage, parts: Parts, error: Exception) -> None:
    """Say why the job failed; what nobody foresaw goes into the log, not to the user."""
    if isinstance(error, JobTimeoutException):
        error = TimedOut(f"The job took longer than {keys.JOB_SECONDS} seconds; send a smaller image.")
    if not isinstance(error, UpresError):
        log.error("job %s failed", job.job_id, exc_info=error)
        error = UpresError("Something went wrong inside upres; the operator finds it in the worker's log.")
    log.info("job %s failed: %s", job.job_id, error.code)
    failed = Failed(job_id=job.job_id, code=error.code, message=str(error), retryable=error.retryable)
    events.append(parts.connection, failed)


def abandoned(job: Job, connection: Redis, *error: Any) -> None:
    """RQ's failure callback: the worker died, or could not tell how the job ended.

    Unless it will be tried again, say that it failed. Must not raise: RQ would stop the worker.
    """
    try:
        if job.retries_left or not events.read(connection, job.id):
            return
        lost = WorkerLost(f"{keys.ATTEMPTS} workers died while they tried this image; try it again, or a smaller one.")
        failed = Failed(job_id=job.id, code=lost.code, message=str(lost), retryable=lost.retryable)
        events.append(connection, failed)
    except Exception:
        log.exception("job %s: could not say that it was abandoned", job.id)
