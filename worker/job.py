"""The pipeline of one job: fetch → decode → upscale → encode → store, each step told as an event."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.exceptions import RedisError

from upres.core import access, coalescing, formats, keys, rates, tracing
from upres.core.catalogue import Pin
from upres.core.errors import (
    DeviceLost,
    FetchError,
    ImageError,
    RequestError,
    TooManyBytes,
    Unavailable,
    UploadNotFound,
    UpresError,
)
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.results import linked
from upres.core.schema import JobMessage, OutputFormat, Result, Stage, Succeeded, now
from upres.core.settings import Settings
from upres.core.storage import ObjectNotFound, Store
from upres.worker import metrics
from upres.worker.checkpoints import LONG_SECONDS, Checkpoints, Pixels
from upres.worker.engine.device import Device, Memory
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine, OnPiece
from upres.worker.fetch import TOTAL_SECONDS, FetchPolicy, fetch
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.images import Picture
from upres.worker.models import Models, Served
from upres.worker.preview import Preview
from upres.worker.report import JobEnded, Report, fail, tell
from upres.worker.watcher import Watcher

log = logging.getLogger("upres.worker")


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
    device: Device
    memory: Memory


def run(parts: Parts, job: JobMessage, lease: Lease) -> None:
    """Do one job and say how it ended.

    Raises when that could not be told, or when the device is lost: then another attempt has to follow.
    """
    with tracing.span(
        f"process {keys.QUEUE}",
        "consumer",
        job.traceparent,
        messaging__system="rq",
        messaging__destination__name=keys.QUEUE,
        messaging__operation__type="process",
        messaging__message__id=job.job_id,
    ):
        _run(parts, job, lease)


def _run(parts: Parts, job: JobMessage, lease: Lease) -> None:
    try:
        result = _process(job, parts, Report(job, parts.connection, parts.device.name, lease))
    except JobEnded:
        JobLog(log, job.job_id).info("ended, or goes on elsewhere", extra={"event": "let_go"})
    except (DeviceLost, RedisError):
        raise
    except Exception as error:
        _fail(job, parts, lease, error)
    else:
        if tell(parts.connection, Succeeded(job_id=job.job_id, result=result), lease):
            told = {"event": "succeeded", "model": job.model, "seconds": result.seconds}
            JobLog(log, job.job_id).info("succeeded: %d×%d", result.width, result.height, extra=told)
            parts.watcher.count(job.model, job.model_digest, well=True)


def _process(job: JobMessage, parts: Parts, report: Report) -> Result:
    report.started()
    pin = Pin(version=job.model_version, digest=job.model_digest, factors=())
    if not parts.models.has(pin.digest):
        report.notice(f"Model {job.model} {job.model_version} is being loaded.")
    with parts.models.use(job.model, pin) as served:
        return _enlarge(job, parts, report, served)


def _enlarge(job: JobMessage, parts: Parts, report: Report, served: Served) -> Result:
    factor = job.upscale_factor
    with report.stage("fetch"):
        data = _fetch(job, parts)
    with report.stage("decode"):
        picture = parts.decoders.decode(data, parts.settings.max_input_pixels(factor))
        format = picture.format if job.output_format == "auto" else job.output_format
        formats.check_size((picture.size[0] * factor, picture.size[1] * factor), format)
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
    job: JobMessage, parts: Parts, report: Report, engine: Engine, picture: Picture, format: OutputFormat, work: str
) -> Result:
    """Enlarge, encode and store."""
    factor, extension = job.upscale_factor, formats.EXTENSIONS[format]
    attempt = report.lease.attempt
    sr_key = keys.result(job.job_id, attempt, extension)
    original_key = keys.original(job.job_id, attempt, extension)
    put = partial(parts.store.put, content_type=formats.CONTENT_TYPES[format])
    checkpoints = Checkpoints(parts.connection, parts.store, parts.encoders, report.lease, work)
    size = (picture.size[0] * factor, picture.size[1] * factor)
    show = Preview(parts.connection, report.lease, size).add if job.preview else None
    with report.stage("upscale"):
        original = parts.encoders.original(picture, factor, format, partial(put, original_key))
        encoder = parts.encoders.open(picture, factor, format)
        for band in _enlarged(engine, report, picture, factor, checkpoints, show):
            encoder.write(band)
    with report.stage("encode"):
        sr = encoder.finish()
    with report.stage("store"):
        put(sr_key, sr)
        original.result()
        checkpoints.drop()
    if not report.resumed:
        rates.note(parts.connection, job.model_digest, factor, size, sum(report.seconds.values()), engine.tile)
    uris = {"sr_image_uri": parts.store.uri(sr_key), "original_image_uri": parts.store.uri(original_key)}
    return _own(job, parts, _made(job, parts.device.name, uris, size, format), report.seconds)


def _made(job: JobMessage, device: str, uris: dict[str, str], size: tuple[int, int], format: OutputFormat) -> Result:
    """A result of (width, height) pixels, without what is a job's own (see _own)."""
    return Result(
        **uris,
        sr_image_url="",
        original_image_url="",
        upscale_factor=job.upscale_factor,
        width=size[0],
        height=size[1],
        format=format,
        file_name="",
        model=job.model,
        model_version=job.model_version,
        model_digest=job.model_digest,
        device=device,
        seconds={},
    )


def _enlarged(
    engine: Engine, report: Report, picture: Picture, factor: int, checkpoints: Checkpoints, show: OnPiece | None
) -> Iterator[Pixels]:
    """Bands of rows, (rows, width·factor, 3): first what an earlier attempt left, then what is new."""
    for band in checkpoints.load():
        if show:
            show(checkpoints.rows - len(band), 0, band)
        yield band
    kept = checkpoints.rows
    if kept == picture.size[1] * factor:
        return
    report.enlarged_by(engine)
    for band in engine.bands(picture.pixels, factor, report.tile, kept, show):
        if kept == checkpoints.rows and (kept or report.expected_seconds > LONG_SECONDS):
            checkpoints.keep(band)
        kept += len(band)
        yield band


def _own(job: JobMessage, parts: Parts, made: Result, seconds: dict[Stage, float]) -> Result:
    """A result as this job tells it: with links and a file name of its own, and the time that it took."""
    file_name = f"{_stem(job)}_x{made.upscale_factor}.{formats.EXTENSIONS[made.format]}"
    return linked(parts.store, made.model_copy(update={"file_name": file_name, "seconds": seconds}))


def _fetch(job: JobMessage, parts: Parts) -> bytes:
    """The image file, from the store or from its URL."""
    limit = parts.settings.max_input_bytes
    if job.image_url is not None:
        left = max(1, min(TOTAL_SECONDS, (job.deadline - now()).total_seconds()))
        policy = FetchPolicy(parts.settings.fetch_private_networks, parts.settings.fetch_hosts)
        return fetch(job.image_url, limit, policy, left)
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


def _fail(job: JobMessage, parts: Parts, lease: Lease, error: Exception) -> None:
    """Say why the job failed; what nobody foresaw goes into the log and to the dead letters, not to the user."""
    unforeseen = not isinstance(error, UpresError)
    if not isinstance(error, UpresError):
        JobLog(log, job.job_id).error("nobody foresaw this", exc_info=error)
        error = UpresError("Something went wrong inside upres; the operator finds it in the worker's log.")
    if isinstance(error, FetchError):
        metrics.FETCH_ERRORS.labels(error.code).inc()
    if not isinstance(error, (RequestError, ImageError, FetchError, Unavailable)):
        parts.watcher.count(job.model, job.model_digest, well=False)
    fail(parts.connection, lease, error, dead=unforeseen)
