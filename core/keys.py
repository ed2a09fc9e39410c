"""Every Redis key, object prefix and lifetime.

This is the only place that makes them, but for jobs.lua and its parts: they make the keys of a job from its id, as
`events`, `run`, `record`, `preview` and `api_key_pixels` below do.

Redis
    rq:queue:upres                 RQ's list of waiting job ids
    rq:job:{id}                    RQ's record of one job, until it has ended
    upres:popped                   list: ids on their way from the queue to a worker
    upres:leases                   sorted set: jobs that workers have, by the end of their lease
    upres:deadlines                sorted set: jobs that have not ended, by their deadline
    upres:dead                     sorted set: dead letters, by the time of their death; their records are kept
    upres:looked                   when a worker last looked for jobs to recover
    upres:ended                    hash: how many jobs ever ended, by model, outcome and code of the error
    upres:workers                  sorted set: names of workers, by their last sign of life
    upres:worker:{name}            what a worker last said of itself
    upres:job:{id}:events          stream: all events of one job, the truth about it
    upres:job:{id}:run             hash: attempt, holder, deaths, work, checkpoints; until the job has ended
    upres:job:{id}                 pub/sub channel: the same JSON, for those who only listen
    upres:work:{sha256}            hash: the job that does this work, then its result
    upres:work:{sha256}:parked     list: jobs that wait for the same result
    upres:idempotency:{sha256}     which job an Idempotency-Key made, and from which body
    upres:keys                     hash: id → API key, as a digest, with its limits
    upres:key:{id}:rate            when the key's next submission would have been due
    upres:key:{id}:jobs            sorted set: the key's jobs that have not ended, by when they are forgotten
    upres:key:{id}:pixels          hash: pixels of the key's results within 24 hours, and how many may be
    upres:token-secret             what tokens for event streams are signed with
    upres:model:{name}             what the model's labels mean, as workers have checked it
    upres:model:{name}:outcomes    hash: how many jobs of a canary ended how
    upres:rate:{sha256}:{factor}   how long jobs of a model version take
    upres:webhooks                 sorted set: jobs whose end is to be told to an address, by when that is tried
    upres:webhook:{id}             hash: address, event, owner and attempts
    upres:webhook-secret           what the owners' webhook secrets are made from
    upres:job:{id}:preview         list: finished tiles, small, while the job runs
    upres:tile:{sha256}            the tile size that fits a device, model and precision

Object store
    uploads/{random}               the image as it was sent
    results/{id}/{attempt}/sr.{ext}        the enlarged image
    results/{id}/{attempt}/original.{ext}  its bicubic enlargement, to compare with
    checkpoints/{id}/{work}/{rows}.png     finished rows of a job that takes long
    models/{name}/{version}/…      manifest and weights
    models/{name}/labels.json      label → version
    models/index.json              all of them in short, to be listed
"""

import hashlib
import re

JOB_ID = re.compile(r"[0-9a-f]{32}")
"""128 random bits. Whatever else asks for a job never gets as far as a key."""
QUEUE = "upres"
"""Name of the RQ queue."""
JOB_FUNCTION = "worker.job.run"
"""Dotted name under which jobs are enqueued; the worker runs this one and no other."""
WAITING = f"rq:queue:{QUEUE}"
POPPED = "upres:popped"
LEASES = "upres:leases"
DEADLINES = "upres:deadlines"
DEAD = "upres:dead"
ENDED = "upres:ended"
WORKERS = "upres:workers"
LOOKED = "upres:looked"
API_KEYS = "upres:keys"
MODEL_INDEX = "models/index.json"
SIGNS_TOKENS = "upres:token-secret"
WEBHOOKS = "upres:webhooks"
SIGNS_WEBHOOKS = "upres:webhook-secret"

DAY = 24 * 3600
EVENTS_SECONDS = 7 * DAY
"""A job can be asked about for a week after its last event: as long as results are kept."""
OBJECT_DAYS = 14
"""How long uploads and results stay in the bucket (infra/aws/bucket.yml): a result may be shared for REUSE_SECONDS,
then asked for during EVENTS_SECONDS; a dead letter may be replayed after a deadline and as long again."""
IDEMPOTENCY_SECONDS = DAY
"""A client that still retries after a day is a new intention."""
LINK_SECONDS = 3600
"""Presigned links last an hour: long enough to download, short enough to leak. The /result
and /original endpoints make fresh ones for as long as the object lives."""
UPLOAD_LINK_SECONDS = 900
"""An upload has to begin within a quarter of an hour."""
REUSE_SECONDS = 6 * DAY
"""A result is given to identical jobs for so long; a day later its objects go."""
JOB_SECONDS = 600
"""One attempt may run ten minutes: by the measured rates the largest, 4 megapixels at factor 8, takes two CPU
cores about four."""
DEADLINE_SECONDS = DAY
"""A job that nobody finished by then fails, unless it asked for another deadline."""
MAX_DEADLINE_SECONDS = 6 * DAY
"""Less than its events and its record are kept, so that it can still be told."""
LEASE_SECONDS = 12
"""So long after its worker's last sign of life a job goes to another; a restart of Redis must fit into it."""
BEAT_SECONDS = 2
"""How often a worker renews its leases."""
QUIET_SECONDS = 5
"""When no worker looked after the jobs for so long, Redis was away, and none could renew its leases either."""
POPPED_SECONDS = 5
"""A worker that popped a job takes it within milliseconds; after this it has died in between."""
WORKER_SECONDS = LEASE_SECONDS
"""A worker that said nothing for so long is not listed any more."""
ATTEMPTS = 3
"""So often a job is taken up when its workers die; a job that kills three workers kills all."""
MAX_DEAD_LETTERS = 10_000
"""More dead letters than that are not kept; the oldest go first."""
PREVIEW_SECONDS = 600
"""A preview is of no use when its job has stood still for so long."""
WEBHOOK_SECONDS = 3 * DAY
"""Longer than all attempts at telling the end of a job take."""
WEBHOOK_LEASE_SECONDS = 30
"""A worker that tries has told the end of a job by then, or died."""
RATE_SECONDS = 30 * DAY
"""What was not used for a month has nothing to say about today."""
SERVED_MODEL_SECONDS = 60
"""So long after a worker last had a model in memory, the registry alone says what its labels mean."""
OUTCOMES_SECONDS = 30 * DAY
"""A canary that nobody asked for in a month begins again."""
TILE_SECONDS = 30 * DAY
"""A tile size found by running out of memory is tried again upwards after a month."""


def events(job_id: str) -> str:
    """Redis key of the job's event stream."""
    return f"upres:job:{job_id}:events"


def record(job_id: str) -> str:
    """Redis key of RQ's own record of a job."""
    return f"rq:job:{job_id}"


def run(job_id: str) -> str:
    """Redis key of what is known about a job while it has not ended."""
    return f"upres:job:{job_id}:run"


def worker(name: str) -> str:
    """Redis key of what a worker last said of itself."""
    return f"upres:worker:{name}"


def channel(job_id: str) -> str:
    """Pub/sub channel on which the job's events are published."""
    return f"upres:job:{job_id}"


def work(owner: str | None, image: bytes, model_digest: str, factor: int, format: str) -> str:
    """Redis key of a piece of work: jobs with the same one have the same result.

    Shared within one owner only: nobody learns what others sent.
    """
    name = f"{owner}:{hashlib.sha256(image).hexdigest()}:{model_digest}:{factor}:{format}"
    return f"upres:work:{hashlib.sha256(name.encode()).hexdigest()}"


def api_key_pixels(key_id: str) -> str:
    """Redis key of the pixels that an API key's results have had within 24 hours."""
    return f"upres:key:{key_id}:pixels"


def idempotency(key: str) -> str:
    """Redis key for a client's Idempotency-Key; hashed, so that no user text is in a key."""
    return f"upres:idempotency:{hashlib.sha256(key.encode()).hexdigest()}"


def served_model(name: str) -> str:
    """Redis key of what a model's labels mean."""
    return f"upres:model:{name}"


def outcomes(name: str) -> str:
    """Redis key of how a canary's jobs ended."""
    return f"upres:model:{name}:outcomes"


def rate(digest: str, factor: int) -> str:
    """Redis key of how long jobs of a model version take."""
    return f"upres:rate:{digest}:{factor}"


def preview(job_id: str) -> str:
    """Redis key of a running job's finished tiles."""
    return f"upres:job:{job_id}:preview"


def tile(device: str, model_digest: str, precision: str) -> str:
    """Redis key of the tile size that fits into a device's memory, where the usual one did not."""
    name = f"{device}:{model_digest}:{precision}"
    return f"upres:tile:{hashlib.sha256(name.encode()).hexdigest()}"


def upload(name: str) -> str:
    """Object key of the image that came with a request; whoever knows the name may use it."""
    return f"uploads/{name}"


def result(job_id: str, attempt: int, extension: str) -> str:
    """Object key of the enlarged image; each attempt has its own, so that a late one overwrites nothing."""
    return f"results/{job_id}/{attempt}/sr.{extension}"


def original(job_id: str, attempt: int, extension: str) -> str:
    """Object key of the bicubic enlargement."""
    return f"results/{job_id}/{attempt}/original.{extension}"


def checkpoint(job_id: str, work: str, rows: str) -> str:
    """Object key of some finished rows, `first-last`, of a piece of work (its Redis key)."""
    return f"checkpoints/{job_id}/{work.rpartition(':')[2][:16]}/{rows}.png"


def model(name: str, version: str, file: str) -> str:
    """Object key of one file of a model version."""
    return f"models/{name}/{version}/{file}"


def labels(name: str) -> str:
    """Object key of the file that maps a model's labels to versions."""
    return f"models/{name}/labels.json"
