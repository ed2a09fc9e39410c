"""The images of a result in the object store: where this attempt stores them, or an identical job has stored them.

Also the Result that names them.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from upres.core import coalescing, file_names, formats, keys, results, sizes
from upres.core.job_message import JobMessage
from upres.core.leases import Lease
from upres.core.schema import OriginalMode, Result, Stage
from upres.core.sizes import SizePlan
from upres.core.storage import Store
from upres.worker.context import WorkerContext
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.result_file import ResultFile
from upres.worker.report import JobEnded


class StoredImages(NamedTuple):
    """The two images of a result in the object store: the enlargement, and a bicubic one for comparison."""

    enlarged: str
    """Object key."""
    original: str
    """Object key of the bicubic enlargement."""
    original_mode: OriginalMode
    """Whether that is stored with the result, or made on request."""
    output: ResultFile
    """What the files of both are."""
    device: str
    """Name of the device that computed the enlargement."""
    strength: float | None
    """Strength of its model; None when it has none."""


def claim(context: WorkerContext, job: JobMessage, work: str, lease: Lease) -> StoredImages | None:
    """Return the images of an identical job, or None if this job must make them. Raises JobEnded when it must wait."""
    known = coalescing.claim(context.connection, work, lease)
    if isinstance(known, Result) and not _may_be_shared(context.store, job, known):
        known = coalescing.claim(context.connection, work, lease, gone=True)
    if isinstance(known, Result):
        made, store = known, context.store
        enlarged, original = store.key(made.sr_image_uri), store.key(made.original_image_uri)
        output = ResultFile(made.format, made.depth, (made.width, made.height))
        return StoredImages(enlarged, original, made.original, output, made.device, made.strength)
    if known != "run":
        raise JobEnded
    return None


def _may_be_shared(store: Store, job: JobMessage, result: Result) -> bool:
    """Return whether both images of a result are of the job's owner, and in the store as the job needs them."""
    images = [store.key(uri) for uri in (result.sr_image_uri, result.original_image_uri)]
    if not all(keys.is_result_of(job.owner, key) for key in images):
        return False
    if result.original == "lazy":
        if not job.original_url:
            return False
        images[1] = keys.source(images[1])
    return all(map(store.exists, images))


def kind_of_work(job: JobMessage, outputs: Sequence[ResultFile], plans: Sequence[SizePlan]) -> str:
    """Return for keys.work what a result is; without the newer options as in releases that did not have them."""
    output, depths = outputs[0], [one.depth for one in outputs]
    sizes_differ = any(plan.size != plan.made or plan.factor != plans[0].factor for plan in plans)
    options = {
        "16": output.depth == 16,
        "ensemble": job.ensemble,
        job.metadata: job.metadata != "strip",
        " ".join(f"{plan.size[0]}x{plan.size[1]}" for plan in plans): sizes_differ,
        f"quality {output.quality}": output.quality is not None,
        "lossless": output.lossless and job.lossless is True,
        "lossy": job.lossless is False,
        f"{len(outputs)} frames": len(outputs) > 1,
        f"depths {depths}": len(set(depths)) > 1,
        f"after {job.first_model_digest}": job.first_model_digest is not None,
        f"strength {job.strength}": job.strength is not None,
    }
    return "+".join([output.format, *(name for name, wanted in options.items() if wanted)])


def new_images(
    context: WorkerContext, job: JobMessage, lease: Lease, output: ResultFile, strength: float | None
) -> StoredImages:
    """Return the object keys under which this attempt will store its images, and what they are."""
    name = (job.owner, job.job_id, lease.attempt, formats.EXTENSIONS[output.format])
    mode: OriginalMode = "lazy" if job.original_url else "eager"
    return StoredImages(keys.result(*name), keys.original(*name), mode, output, context.device.name, strength)


def result_of(
    context: WorkerContext,
    job: JobMessage,
    images: StoredImages,
    seconds: dict[Stage, float],
    pictures: Pictures,
) -> Result:
    """Return the result that this job publishes, with its own presigned URLs and file name."""
    store, output = context.store, images.output
    size_name = sizes.name(job.upscale_factor, output.size)
    file_name = f"{result_stem(job)}_{size_name}.{formats.EXTENSIONS[output.format]}"
    original = job.original_url if images.original_mode == "lazy" else None
    return Result(
        sr_image_url=results.link(store, job.owner, images.enlarged, file_name),
        sr_image_uri=store.uri(images.enlarged),
        original_image_url=original
        or results.link(store, job.owner, images.original, results.original_name(file_name)),
        original_image_uri=store.uri(images.original),
        original=images.original_mode,
        upscale_factor=job.upscale_factor or sizes.ratio(pictures.first.size[0], output.size[0]),
        width=output.size[0],
        height=output.size[1],
        format=output.format,
        depth=output.depth,
        file_name=file_name,
        model=job.model,
        model_version=job.model_version,
        model_digest=job.model_digest,
        strength=images.strength,
        first_model=job.first_model,
        first_model_version=job.first_model_version,
        first_model_digest=job.first_model_digest,
        device=images.device,
        seconds=seconds,
        notices=list(pictures.notices),
        ensemble=job.ensemble,
        frames=len(pictures.frames),
    )


def result_stem(job: JobMessage) -> str:
    """Return the input's file name without extension, safe on every system; if that is empty, the job's id."""
    return file_names.stem(job.image_name or unquote(urlsplit(job.image_url or "").path)) or job.job_id
