"""The original of a result: its image enlarged by bicubic interpolation, for comparison.

Beside a fast GPU it is most of a job's work, and few people look at it. So a job keeps only what the original is made
from, its source; when somebody asks for the original first, a job of its own makes it. A client that wants it at once
asks for `original: eager`.

A source is one object: a line of JSON (Recipe), and the bytes of the image file.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from pydantic import Field, ValidationError

from upres.core import formats, keys
from upres.core.errors import JobRefused, UploadNotFound, WorkerOutdated
from upres.core.job_message import JobMessage
from upres.core.logs import JobLog
from upres.core.options import ResultOptions
from upres.core.schema import Result, TolerantModel
from upres.core.storage import ObjectNotFound
from upres.worker.context import WorkerContext
from upres.worker.imaging.bicubic import bicubic
from upres.worker.imaging.prepared import Prepared
from upres.worker.in_flight import InFlightJob
from upres.worker.inputs import decoded
from upres.worker.memory_budget import estimate
from upres.worker.report import Report
from upres.worker.samples import Samples
from upres.worker.stored_images import StoredImages, result_of
from upres.worker.waits import alone_if_suspect, reserved_memory

log = logging.getLogger("upres.worker")


class Recipe(TolerantModel):
    """How an original is made from an image file."""

    options: dict[str, Any] = Field(description="The options of the result (ResultOptions) that are not the default.")
    factors: tuple[int, ...] = Field(description="Factors of its model, on which the sizes of its pages depend.")
    sha256: str = Field(description="SHA-256 of the image file, in hexadecimal.")


def begin(
    context: WorkerContext, job: JobMessage, data: bytes, factors: Sequence[int], task: Prepared, images: StoredImages
) -> "Future[object]":
    """Store the original of a result, or its source if it is made later, in the background.

    The future raises StoreUnavailable, or NotEncoded.
    """
    if images.original_mode == "eager":
        return context.encoders.background(lambda: _make(context, task, images.original))
    options = job.model_dump(mode="json", include=set(ResultOptions.model_fields), exclude_defaults=True)
    recipe = Recipe(options=options, factors=tuple(factors), sha256=hashlib.sha256(data).hexdigest())
    source = recipe.model_dump_json(exclude_defaults=True).encode() + b"\n" + data
    return context.encoders.background(partial(context.store.put, keys.source(images.original), source))


def run(context: WorkerContext, job: JobMessage, report: Report, in_flight: InFlightJob) -> Result:
    """Run the job of an original: make it from its source. Its result has the original in place of both images.

    Raises JobRefused for a key that is not of the job's owner, UploadNotFound when the source is not kept any more,
    WorkerOutdated when a newer release wrote it; and what the stages of any job raise.
    """
    key = job.original_key or ""
    if not keys.is_result_of(job.owner, key):
        raise JobRefused(f"{key[:200]!r} is no result of the job's owner.")
    with report.stage("fetch"):
        recipe, options, data = _source(context, key)
    with alone_if_suspect(context, report, in_flight):
        with report.stage("decode"):
            task = decoded(context, options, data, recipe.factors)
        with reserved_memory(context, report, in_flight, _memory(task)), report.stage("upscale"):
            _make(context, task, key)
    images = StoredImages(key, key, "eager", task.output, context.device.name, None)
    wanted = job.model_copy(update={"upscale_factor": options.upscale_factor})
    JobLog(log, job.job_id).info("made the original %s", key)
    return result_of(context, wanted, images, report.seconds, task.pictures)


def _source(context: WorkerContext, key: str) -> tuple[Recipe, ResultOptions, bytes]:
    """Read the source of an original: how it is made, the options, and the image file."""
    try:
        line, _, data = context.store.get(keys.source(key)).partition(b"\n")
        recipe = Recipe.model_validate_json(line)
        options = ResultOptions.model_validate(recipe.options)  # strict: an unknown option would change the pixels
    except ObjectNotFound as error:
        raise UploadNotFound("The image is not kept any more, so there is no original; submit it again.") from error
    except ValidationError as error:
        raise WorkerOutdated("The original waits for a worker of another release, which knows its options.") from error
    if hashlib.sha256(data).hexdigest() != recipe.sha256:
        raise UploadNotFound("The image that was kept for the original is damaged; submit it again.")
    return recipe, options, data


def _make(context: WorkerContext, task: Prepared, key: str) -> None:
    """Enlarge the pictures, encode them, and store the file."""
    with context.store.upload(key, formats.CONTENT_TYPES[task.output.format]) as upload:
        context.encoders.encode(task.pictures, task.outputs, _bands(task), upload.write)
        upload.finish()


def _bands(task: Prepared) -> Iterator[Samples]:
    for picture, output in zip(task.pictures.frames, task.outputs, strict=True):
        yield from bicubic(picture.pixels, output.size)


def _memory(task: Prepared) -> int:
    """Return the bytes of memory that an original needs at most."""
    size = sum(
        frame.pixels.itemsize * frame.pixels.shape[2] * output.size[0] * output.size[1]
        for frame, output in zip(task.pictures.frames, task.outputs, strict=True)
    )
    return estimate(size, task.output.format, task.depth, len(task.outputs))
