"""The image of a job: its file, from its address or the object store, and its pictures."""

from collections.abc import Sequence

from upres.core import formats, keys
from upres.core.errors import FetchError, TooManyBytes, UploadNotFound
from upres.core.job_message import JobMessage
from upres.core.leases import Lease
from upres.core.options import ResultOptions
from upres.core.storage import ObjectNotFound
from upres.worker.context import WorkerContext
from upres.worker.fetch import TOTAL_SECONDS, fetch
from upres.worker.guard import FetchPolicy
from upres.worker.imaging.prepared import Prepared, prepared
from upres.worker.report import JobEnded


def image_file(context: WorkerContext, job: JobMessage, lease: Lease) -> bytes:
    """Fetch the image file from the store or from its URL.

    Raises FetchError, TooManyBytes or StoreUnavailable; JobEnded as soon as the job ends while its URL is fetched.
    """
    limit = context.settings.max_input_bytes
    if job.image_url is not None:
        left = max(1, min(TOTAL_SECONDS, lease.seconds_left))  # by the clock of Redis: this one may be wrong
        with context.ended_jobs.watch(lease) as interrupt:
            try:
                return fetch(job.image_url, limit, FetchPolicy.of(context.settings), left, interrupt.attach)
            except FetchError:
                if interrupt.is_set:
                    raise JobEnded from None
                raise
    try:
        data = context.store.get(job.image_key or "", limit)
    except ObjectNotFound as error:
        raise UploadNotFound(f"image_key: there is no upload {job.image_key}; upload the image first.") from error
    if len(data) > limit:
        raise TooManyBytes.for_limit(limit)
    if not keys.is_content(job.image_key or "", data):  # else whoever knows an image's digest could stand in for it
        raise UploadNotFound("image_key: the upload is not the image whose SHA-256 was stated; upload the image again.")
    return data


def decoded(context: WorkerContext, options: ResultOptions, data: bytes, factors: Sequence[int]) -> Prepared:
    """Decode the pictures of an image file that a result with these options has, and decide what the result is.

    `factors` are those of the model that enlarges. Raises ImageError.
    """
    wanted, limit = options.wanted_size, context.settings.max_input_pixels
    holds = None if options.frames == "first" else formats.holds(options.output_format)
    pictures = context.decoders.decode_all(data, limit(wanted.least_factor(factors)), options.metadata, wanted, holds)
    return prepared(pictures, options, factors, limit)
