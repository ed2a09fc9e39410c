"""The pipeline of one job: fetch → decode → upscale → encode → store. Each step is published as an event."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from upres.core import api_keys, formats, keys, rates, tracing
from upres.core.errors import (
    DeviceLost,
    FetchError,
    ModelTooNew,
    ModelUnavailable,
    StoreUnavailable,
    Unconfined,
    UpresError,
    WorkerOutdated,
    WorkerUnavailable,
)
from upres.core.job_message import JobMessage
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.schema import Result
from upres.core.tiling import ORIENTATIONS
from upres.worker import metrics, originals
from upres.worker.checkpoints import Checkpoints
from upres.worker.context import WorkerContext
from upres.worker.engine.steps import Steps
from upres.worker.enlarging import Enlargement, all_downscaled
from upres.worker.imaging.prepared import Prepared
from upres.worker.in_flight import InFlightJob
from upres.worker.inputs import decoded, image_file
from upres.worker.job_steps import opened
from upres.worker.memory_budget import estimate
from upres.worker.own_faults import own_fault
from upres.worker.preview import Preview
from upres.worker.report import JobEnded, Report, publish_failure
from upres.worker.resuming import resumed
from upres.worker.stored_images import StoredImages, claim, kind_of_work, new_images, result_of
from upres.worker.waits import alone_if_suspect, reserved_memory

log = logging.getLogger("upres.worker")

WORKER_FAULTS = (StoreUnavailable, ModelUnavailable, WorkerUnavailable, Unconfined)
"""Errors that are faults of this worker or of what it uses, and not of the job: the job is tried again."""


def run(context: WorkerContext, job: JobMessage, in_flight: InFlightJob) -> bool:
    """Run one job and publish how it ended; returns whether it succeeded.

    Raises redis-py's errors when an event could not be published, DeviceLost when this process cannot use its device
    any more, WorkerOutdated when a model needs a newer release, and WORKER_FAULTS. In these cases the job has not
    ended, and needs another attempt.
    """
    lease = in_flight.lease
    with _span(job):
        report = Report(job, context.connection, context.device.name, lease, context.outbox_thread)
        try:
            with report.complete():
                result = process(context, job, report, in_flight)
        except JobEnded:
            JobLog(log, job.job_id).info("stopped: the job has ended or is not held here", extra={"event": "let_go"})
        except (DeviceLost, RedisError, WorkerOutdated, *WORKER_FAULTS):
            raise
        except ModelTooNew as error:
            raise WorkerOutdated(f"{error} The job waits for a worker of a newer release.") from error
        except Exception as error:
            if fault := own_fault(error, context.store.host):
                raise fault from error
            _fail(context, job, lease, error)
        else:
            _succeed(job, report, result)
            return True
        return False


def process(context: WorkerContext, job: JobMessage, report: Report, in_flight: InFlightJob) -> Result:
    """Run the five stages of a job and return its result. If an identical job has a result, return that instead.

    Raises JobEnded when this worker does not hold the job any more, or when it waits for an identical job. Raises
    UpresError when a stage fails.
    """
    if any(context.models.is_too_new(model.digest, model.strength) for model in job.models):
        raise WorkerOutdated("The model needs a worker of a newer release.")  # without another event `started`
    report.started()
    if job.original_key:
        return originals.run(context, job, report, in_flight)
    with opened(context, job, report) as steps:
        with report.stage("fetch"):
            data = image_file(context, job, report.lease)
        with alone_if_suspect(context, report, in_flight):
            return _enlarge(context, job, report, in_flight, steps, data)


def _enlarge(
    context: WorkerContext, job: JobMessage, report: Report, in_flight: InFlightJob, steps: Steps, data: bytes
) -> Result:
    """Run the stages after `fetch`, unless an identical job has done them."""
    with report.stage("decode"):
        task = decoded(context, job, data, steps.factors)
        report.has_frames(len(task.outputs))
        for notice in task.pictures.notices:
            report.notice(notice, "decode")
    if job.owner:
        computed = task.made_pixels + (task.given_pixels if job.first_model else 0)
        api_keys.charge(context.connection, report.lease, computed * _orientations(job))
    kind = kind_of_work(job, task.outputs, task.plans)
    work = keys.work(job.owner, data, job.model_digest, task.plans[0].factor, kind)
    report.publish_waiting()  # a job that has to wait for an identical one gets an event from Redis
    images = claim(context, job, work, report.lease)
    if images is None:
        images = _make(context, job, report, in_flight, steps, task, work, data)
    return result_of(context, job, images, report.seconds, task.pictures)


def _make(
    context: WorkerContext,
    job: JobMessage,
    report: Report,
    in_flight: InFlightJob,
    steps: Steps,
    task: Prepared,
    work: str,
    data: bytes,
) -> StoredImages:
    """Enlarge, encode and store a result. `work` is the key of this piece of work (keys.work), `data` the image file.

    A large file is sent while it is encoded.
    """
    enlargement = Enlargement(steps, task.pictures, task.factors, _orientations(job))
    memory = estimate(enlargement.bytes, task.output.format, task.depth, len(task.outputs))
    memory += enlargement.first_step_bytes if job.first_model else 0
    with reserved_memory(context, report, in_flight, memory):
        checkpoints = Checkpoints(context.connection, context.store, context.encoders, report.lease, work)
        images = new_images(context, job, report.lease, task.output, steps.strength(job.strength))
        with context.store.upload(images.enlarged, formats.CONTENT_TYPES[task.output.format]) as upload:
            with report.stage("upscale"):
                original = originals.begin(context, job, data, steps.factors, task, images)
                encoder = context.encoders.open(task.pictures, task.outputs, upload.write)
                sizes = task.plans[0].made, task.output.size
                on_piece = Preview(context.connection, report.lease, *sizes).add if job.preview else None
                for band in all_downscaled(resumed(enlargement, report, checkpoints, on_piece), task.plans):
                    encoder.write(band)
            with report.stage("encode"):
                encoder.finish()
            with report.stage("store"):
                upload.finish()
                original.result()
        checkpoints.drop()
    if not (report.resumed or enlargement.repeated):  # else the seconds are not those of all pixels
        report.on_success = _statistics_update(context, job, report, steps, task)
    return images


def _statistics_update(
    context: WorkerContext, job: JobMessage, report: Report, steps: Steps, task: Prepared
) -> Callable[[], None]:
    """Return what adds the job to the statistics that estimates are made from."""
    spent, first = sum(report.seconds.values()), (job.first_model_digest, steps.first_tile)
    kind = job.model_digest, task.plans[0].factor, task.made_pixels
    return partial(rates.note, context.connection, *kind, spent, steps.tile, job.ensemble, *first)


def _orientations(job: JobMessage) -> int:
    return ORIENTATIONS if job.ensemble else 1


def _succeed(job: JobMessage, report: Report, result: Result) -> None:
    if report.succeeded(result):
        fields = {"event": "succeeded", "model": job.model, "seconds": result.seconds}
        JobLog(log, job.job_id).info("succeeded: %d×%d", result.width, result.height, extra=fields)
        with suppress(RedisError):  # the job has ended, and an estimate may miss one
            report.on_success()


def _fail(context: WorkerContext, job: JobMessage, lease: Lease, error: Exception) -> None:
    """Publish why the job failed. An unforeseen error is logged and makes a dead letter; its text is not published."""
    unforeseen = not isinstance(error, UpresError)
    if not isinstance(error, UpresError):
        JobLog(log, job.job_id).error("unforeseen error", exc_info=error)
        error = UpresError("Something went wrong inside upres; the operator finds it in the worker's log.")
    if isinstance(error, FetchError):
        metrics.FETCH_ERRORS.labels(error.code).inc()
    publish_failure(context.connection, lease, error, dead=unforeseen)


def _span(job: JobMessage) -> AbstractContextManager[Any]:
    """Open the span of the whole job, named by OpenTelemetry's semantic conventions for messaging."""
    return tracing.span(
        f"process {keys.QUEUE}",
        "consumer",
        job.traceparent,
        messaging__system="rq",
        messaging__destination__name=keys.QUEUE,
        messaging__operation__type="process",
        messaging__message__id=job.job_id,
    )
