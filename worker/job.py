"""The pipeline of one job: fetch → decode → upscale → encode → store, each step told as an event."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.exceptions import RedisError

from core import access, coalescing, events, keys, leases
from core.catalogue import Pin
from core.errors import (
    DeviceLost,
    FetchError,
    ImageError,
    RequestError,
    TooManyBytes,
    Unavailable,
    UploadNotFound,
    UpresError,
)
from core.leases import Lease
from core.schema import Event, JobMessage, OutputFormat, Progress, Result, Stage, Started, Succeeded, now
from core.settings import Settings
from core.storage import ObjectNotFound, Store
from worker.checkpoints import LONG_SECONDS, Checkpoints, Pixels
from worker.engine.device_thread import DeviceThread
from worker.engine.engine import Engine
from worker.fetch import TOTAL_SECONDS, Reach, fetch
from worker.imaging import images
from worker.imaging.decoding import Decoders
from worker.imaging.encode import Encoders
from worker.imaging.images import Picture
from worker.models import Models, Served
from worker.watcher import Watcher

log = logging.getLogger("upres.worker")

PERCENT: dict[Stage, float] = {"fetch": 0, "decode": 3, "upscale": 5, "encode": 85, "store": 97}
"""Where each stage begins on the way to 100; upscaling fills its part tile by tile."""


class Parts(NamedTuple):
    """What a worker has when it takes jobs, the same for all of them."""

    connection: Redis
    store: Store
    models: Models
    thread: DeviceThread
    watcher: Watcher
    decoders: Decoders
    encoders: Encoders
    settings: Settings
    device: str


class JobEnded(Exception):
    """The job is not this worker's any more: it has ended, another attempt goes on with it, or it waits."""


def run(parts: Parts, job: JobMessage, lease: Lease) -> None:
    """Do one job and say how it ended.

    Raises when that could not be told, or when the device is lost: then another attempt has to follow.
    """
    try:
        result = _process(job, parts, Report(job, parts, lease))
    except JobEnded:
        log.info("job %s ended, or goes on elsewhere", job.job_id)
    except (DeviceLost, RedisError):
        raise
    except Exception as error:
        _fail(job, parts, lease, error)
    else:
        if events.append(parts.connection, Succeeded(job_id=job.job_id, result=result), lease.holder):
            log.info("job %s succeeded: %d×%d", job.job_id, result.width, result.height)
            parts.watcher.count(job.model, job.model_digest, well=True)


def _process(job: JobMessage, parts: Parts, report: "Report") -> Result:
    report.started()
    pin = Pin(version=job.model_version, digest=job.model_digest, factors=())
    if not parts.models.has(pin.digest):
        report.notice(f"Model {job.model} {job.model_version} is being loaded.")
    with parts.models.use(job.model, pin) as served:
        return _enlarge(job, parts, report, served)


def _enlarge(job: JobMessage, parts: Parts, report: "Report", served: Served) -> Result:
    factor = job.upscale_factor
    with report.stage("fetch"):
        data = _fetch(job, parts)
    with report.stage("decode"):
        picture = parts.decoders.decode(data, parts.settings.max_input_pixels(factor))
        format = picture.format if job.output_format == "auto" else job.output_format
        images.check_size((picture.size[0] * factor, picture.size[1] * factor), format)
    access.charge(parts.connection, report.lease, picture.size[0] * picture.size[1] * factor**2)
    work = keys.work(job.owner, data, job.model_digest, factor, format)
    if shared := _shared(parts, work, report.lease):
        return _own(job, parts, shared, report.seconds)
    return _make(job, parts, report, served.engine, picture, format, work)


def _shared(parts: Parts, work: str, lease: Lease) -> Result | None:
    """What an identical job made; None when this one has to do it. JobEnded when it has to wait for another."""
    claim = coalescing.claim(parts.connection, work, lease)
    if isinstance(claim, Result) and not _is_there(parts.store, claim):
        claim = coalescing.claim(parts.connection, work, lease, gone=True)
    if isinstance(claim, Result):
        return claim
    if claim != "do it":
        raise JobEnded
    return None


def _is_there(store: Store, result: Result) -> bool:
    return all(store.exists(store.key(uri)) for uri in (result.sr_image_uri, result.original_image_uri))


def _make(
    job: JobMessage, parts: Parts, report: "Report", engine: Engine, picture: Picture, format: OutputFormat, work: str
) -> Result:
    """Enlarge, encode and store."""
    factor, extension = job.upscale_factor, images.EXTENSIONS[format]
    attempt = report.lease.attempt
    sr_key = keys.result(job.job_id, attempt, extension)
    original_key = keys.original(job.job_id, attempt, extension)
    put = partial(parts.store.put, content_type=images.CONTENT_TYPES[format])
    checkpoints = Checkpoints(parts.connection, parts.store, parts.encoders, report.lease, work)
    with report.stage("upscale"):
        original = parts.encoders.original(picture, factor, format, partial(put, original_key))
        encoder = parts.encoders.open(picture, factor, format)
        for band in _enlarged(engine, report, picture, factor, checkpoints):
            encoder.write(band)
    with report.stage("encode"):
        sr = encoder.finish()
    with report.stage("store"):
        put(sr_key, sr)
        original.result()
        checkpoints.drop()
    made = Result(
        sr_image_url="",
        sr_image_uri=parts.store.uri(sr_key),
        original_image_url="",
        original_image_uri=parts.store.uri(original_key),
        upscale_factor=factor,
        width=picture.size[0] * factor,
        height=picture.size[1] * factor,
        format=format,
        file_name="",
        model=job.model,
        model_version=job.model_version,
        model_digest=job.model_digest,
        device=parts.device,
        seconds={},
    )
    return _own(job, parts, made, report.seconds)


def _enlarged(
    engine: Engine, report: "Report", picture: Picture, factor: int, checkpoints: Checkpoints
) -> Iterator[Pixels]:
    """Bands of rows, (rows, width·factor, 3): first what an earlier attempt left, then what is new."""
    yield from checkpoints.load()
    kept = checkpoints.rows
    if kept == picture.size[1] * factor:
        return
    report.enlarged_by(engine)
    for band in engine.bands(picture.pixels, factor, report.tile, kept):
        if kept == checkpoints.rows and (kept or report.expected_seconds > LONG_SECONDS):
            checkpoints.keep(band)
        kept += len(band)
        yield band


def _own(job: JobMessage, parts: Parts, made: Result, seconds: dict[Stage, float]) -> Result:
    """A result as this job tells it: with links and a file name of its own, and the time that it took."""
    file_name = f"{_stem(job)}_x{made.upscale_factor}.{images.EXTENSIONS[made.format]}"
    sr, original = (parts.store.key(uri) for uri in (made.sr_image_uri, made.original_image_uri))
    return made.model_copy(
        update={
            "sr_image_url": parts.store.presign(sr, file_name),
            "original_image_url": parts.store.presign(original, f"bicubic_{file_name}"),
            "file_name": file_name,
            "seconds": seconds,
        }
    )


def _fetch(job: JobMessage, parts: Parts) -> bytes:
    """The image file, from the store or from its URL."""
    limit = parts.settings.max_input_bytes
    if job.image_url is not None:
        left = max(1, min(TOTAL_SECONDS, (job.deadline - now()).total_seconds()))
        reach = Reach(parts.settings.fetch_private_networks, parts.settings.fetch_hosts)
        return fetch(job.image_url, limit, reach, left)
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

    def __init__(self, job: JobMessage, parts: Parts, lease: Lease) -> None:
        self.lease = lease
        self._job = job
        self._parts = parts
        self._stage_began = 0.0
        self._tiles = (0, 0)
        self._resumed = 0
        self._engine: Engine | None = None
        self._tile_size = 0
        self.seconds: dict[Stage, float] = {}

    @property
    def expected_seconds(self) -> float:
        """How long all tiles take, judged by those that are done."""
        done, total = self._tiles
        fresh = done - self._resumed
        return (time.perf_counter() - self._stage_began) / fresh * total if fresh else 0

    def started(self) -> None:
        """The job was taken; `attempt` counts how often that happened."""
        job, parts = self._job, self._parts
        self._append(
            Started(
                job_id=job.job_id,
                worker=threading.current_thread().name,
                device=parts.device,
                model=job.model,
                model_version=job.model_version,
                model_digest=job.model_digest,
                attempt=self.lease.attempt,
                waited_seconds=max(0.0, (now() - job.submitted_at).total_seconds()),
            )
        )

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
        yield
        self.seconds[stage] = round(time.perf_counter() - self._stage_began, 4)

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
        if events.append(self._parts.connection, event, self.lease.holder) is None:
            raise JobEnded


def _fail(job: JobMessage, parts: Parts, lease: Lease, error: Exception) -> None:
    """Say why the job failed; what nobody foresaw goes into the log and to the dead letters, not to the user."""
    unforeseen = not isinstance(error, UpresError)
    if not isinstance(error, UpresError):
        log.error("job %s failed", job.job_id, exc_info=error)
        error = UpresError("Something went wrong inside upres; the operator finds it in the worker's log.")
    log.info("job %s failed: %s", job.job_id, error.code)
    if not isinstance(error, (RequestError, ImageError, FetchError, Unavailable)):
        parts.watcher.count(job.model, job.model_digest, well=False)
    events.append(parts.connection, leases.failure(job.job_id, error), lease.holder, dead=unforeseen)
