"""Every Redis key, object prefix and lifetime, in one place.

Redis
    rq:queue:upres                 RQ's list of waiting job ids
    rq:job:{id}                    RQ's record of one job, until it has ended
    upres:job:{id}:events          stream: all events of one job, the truth about it
    upres:job:{id}                 pub/sub channel: the same JSON, for those who only listen
    upres:idempotency:{sha256}     which job an Idempotency-Key made, and from which body
    upres:tile:{sha256}            the tile size that fits a device, model and precision

Object store
    uploads/{id}                   the image as it was sent
    results/{id}/sr.{ext}          the enlarged image
    results/{id}/original.{ext}    its bicubic enlargement, to compare with
    models/{name}/{version}/…      manifest and weights
    models/{name}/labels.json      label → version
"""

import hashlib
import re

JOB_ID = re.compile(r"[0-9a-f]{32}")
"""128 random bits. Whatever else asks for a job never gets as far as a key."""
QUEUE = "upres"
JOB_FUNCTION = "worker.job.run"
"""Dotted name under which jobs are enqueued; the worker runs this one and no other."""

DAY = 24 * 3600
EVENTS_SECONDS = 7 * DAY
"""A job can be asked about for a week after its last event: as long as results are kept."""
IDEMPOTENCY_SECONDS = DAY
"""A client that still retries after a day is a new intention."""
LINK_SECONDS = 3600
"""Presigned links last an hour: long enough to download, short enough to leak. The /result
and /original endpoints make fresh ones for as long as the object lives."""
JOB_SECONDS = 600
"""One job may run ten minutes: by the measured rates the largest, 4 megapixels at factor 8, takes two CPU
cores about four."""
ATTEMPTS = 3
"""So often a job is taken up again when its worker died; a job that kills three workers kills all."""
TILE_SECONDS = 30 * DAY
"""A tile size found by running out of memory is tried again upwards after a month."""
RQ_TRACE_SECONDS = DAY
"""How long RQ keeps its own record of a job that failed in a way we did not foresee."""


def events(job_id: str) -> str:
    """Redis key of the job's event stream."""
    return f"upres:job:{job_id}:events"


def rq_job(job_id: str) -> str:
    """Redis key of RQ's own record of a job."""
    return f"rq:job:{job_id}"


def channel(job_id: str) -> str:
    """Pub/sub channel on which the job's events are published."""
    return f"upres:job:{job_id}"


def idempotency(key: str) -> str:
    """Redis key for a client's Idempotency-Key; hashed, so that no user text is in a key."""
    return f"upres:idempotency:{hashlib.sha256(key.encode()).hexdigest()}"


def tile(device: str, model_digest: str, precision: str) -> str:
    """Redis key of the tile size that fits into a device's memory, where the usual one did not."""
    name = f"{device}:{model_digest}:{precision}"
    return f"upres:tile:{hashlib.sha256(name.encode()).hexdigest()}"


def upload(job_id: str) -> str:
    """Object key of the image that came with the request."""
    return f"uploads/{job_id}"


def result(job_id: str, extension: str) -> str:
    """Object key of the enlarged image."""
    return f"results/{job_id}/sr.{extension}"


def original(job_id: str, extension: str) -> str:
    """Object key of the bicubic enlargement."""
    return f"results/{job_id}/original.{extension}"


def model(name: str, version: str, file: str) -> str:
    """Object key of one file of a model version."""
    return f"models/{name}/{version}/{file}"


def labels(name: str) -> str:
    """Object key of the file that maps a model's labels to versions."""
    return f"models/{name}/labels.json"
