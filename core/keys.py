"""Every Redis key, object key and TTL.

Only this module makes keys, with one exception: jobs.lua and its parts make the keys of jobs, API keys, workers and
webhooks from an id. The functions below that make the same keys must agree with them.

Redis
    rq:queue:upres                 RQ's list of waiting job ids
    rq:job:{id}                    RQ's record of one job, until it has ended
    upres:popped                   list: ids of jobs that a worker has popped and not taken yet
    upres:leases                   sorted set: jobs that workers hold, by the expiry time of their lease
    upres:deadlines                sorted set: jobs that have not ended, by their deadline
    upres:dead                     sorted set: dead letters, by the time of their failure; their records are kept
    upres:parked                   set: ids of the jobs in the lists of jobs that wait for the same result
    upres:deaths                   number of deaths of workers, once for each job that died with its worker
    upres:audited                  when a worker has last looked for jobs that are nowhere
    upres:looked                   time of the last `recover` by any worker, in milliseconds
    upres:ended                    hash: number of jobs that have ended, by model, outcome and error code
    upres:workers                  sorted set: names of workers, by the time of their last heartbeat
    upres:worker:{name}            record of a worker, as of its last heartbeat
    upres:job:{id}:events          stream: all events of one job; the job's state is computed from them
    upres:job:{id}:run             hash: attempt, holder, deaths, returns, work, checkpoints; deleted when the job ends
    upres:job:{id}                 pub/sub channel: the JSON of each event
    upres:job:{id}:held            hash: holder and API key of an ended job that its worker still works on
    upres:work:{sha256}            hash: the job that does this work, then its result
    upres:work:{sha256}:parked     list: jobs that wait for the same result
    upres:idempotency:{sha256}     the job that an Idempotency-Key made, and the digest of its request
    upres:keys                     hash: id → API key, with the digest of its secret and its limits
    upres:key:{id}:rate            theoretical arrival time of the API key's next request (GCRA), in milliseconds
    upres:key:{id}:reads           the same for requests that read or cancel jobs
    upres:key:{id}:jobs            sorted set: the API key's jobs that have not ended, by the time of their expiry
    upres:key:{id}:originals       sorted set: the jobs that make originals for the API key
    upres:key:{id}:pixels          hash: pixels of the API key's results within 24 hours, their end, and the limit
    upres:key:{id}:bytes           hash: the same for the bytes of the images that it sends
    upres:token-secret             secret that signs the tokens with which clients read one job
    upres:model:{name}             the served model: its labels → versions that workers have checked
    upres:model:{name}:outcomes    hash: number of succeeded and failed jobs of each canary
    upres:model:{name}:verdict:{sha256}    hash: whether workers of a kind may load a version
    upres:model:{name}:trying:{sha256}     the worker that tries a version now
    upres:rate:{sha256}:{factor}   statistics of job durations of one model version
    upres:webhooks                 sorted set: jobs whose webhook has to be sent, by the time of the next attempt
    upres:webhook:{id}             hash: address, event, owner and attempts of one webhook
    upres:webhook-secret           root secret from which the owners' webhook secrets are derived
    upres:job:{id}:preview         list: previews of a running job's finished tiles
    upres:model::lock              lock of the registry, where the store honours no conditional writes
    upres:tile:{sha256}            sizes of tiles and batches that fit a device, model and precision

Object store
    uploads/{random}               the image as the client sent it
    results/{owner}/{id}/{attempt}/sr.{ext}        the enlarged image
    results/{owner}/{id}/{attempt}/original.{ext}  a bicubic enlargement of the same image, for comparison
    results/{owner}/{id}/{attempt}/source          the image as it was sent, from which that is made on request
    checkpoints/{id}/{work}/{rows}.png     finished rows of a long job
    models/{name}/{version}/…      manifest and weights
    models/{name}/{version}/manifest.sha256        digest of the manifest: with it a push claims the version
    models/{name}/labels.json      label → version
    models/index.json              summary of all models and versions
    models/.conditional-writes     shows whether the store honours conditional writes
"""

import hashlib
import re
import secrets

from upres.core import model_names

JOB_ID = re.compile(r"[0-9a-f]{32}")
"""Form of a job id: 128 random bits in hexadecimal. Other text from clients is never made part of a key."""
NO_OWNER = "anybody"
"""Stands for the owner in the keys of results of jobs that were submitted without an API key."""
_UPLOAD = re.compile(r"uploads/[0-9a-f]{32}-(?P<digest>[0-9a-f]{31})")
_RESULT = re.compile(r"results/(?P<owner>[0-9a-z]+)/[0-9a-f]{32}/[0-9]{1,9}/(sr|original)\.[a-z]{3,4}")
QUEUE = "upres"
"""Name of the RQ queue."""
JOB_FUNCTION = "worker.job.run"
"""Dotted function name in RQ's records; a worker refuses records with any other name."""
WAITING = f"rq:queue:{QUEUE}"
POPPED = "upres:popped"
LEASES = "upres:leases"
DEADLINES = "upres:deadlines"
DEAD = "upres:dead"
PARKED = "upres:parked"
AUDITED = "upres:audited"
DEATHS = "upres:deaths"
JOB_COUNTS = "upres:ended"
WORKERS = "upres:workers"
LAST_RECOVERY = "upres:looked"
API_KEYS = "upres:keys"
MODEL_INDEX = "models/index.json"
WRITE_PROBE = "models/.conditional-writes"
REGISTRY_LOCK = "upres:model::lock"
"""Below `upres:model:`, where workers may write. It is no key of a model, since no model has an empty name."""
JOB_SIGNING_KEY = "upres:token-secret"
WEBHOOKS = "upres:webhooks"
WEBHOOK_SIGNING_KEY = "upres:webhook-secret"

DAY = 24 * 3600
EVENTS_SECONDS = 7 * DAY
"""TTL of a job's events, renewed by each event: clients can read a job for a week after its last event."""
OBJECT_DAYS = 14
"""Days after which the bucket deletes uploads and results (infra/aws/bucket.yml). A result may be shared for
REUSE_SECONDS and then read for EVENTS_SECONDS: 13 days. A dead letter of a job may be replayed for EVENTS_SECONDS
after a deadline of at most MAX_DEADLINE_SECONDS: 13 days."""
IDEMPOTENCY_SECONDS = DAY
"""TTL of an idempotency record: one day, longer than the retries of a client last."""
LINK_SECONDS = 3600
"""Lifetime of a presigned URL of a result: one hour is enough for a download, and limits the harm of a leaked URL.
The endpoints /result and /original make new URLs."""
UPLOAD_LINK_SECONDS = 900
"""Lifetime of a presigned URL for an upload: the client must begin the upload within 15 minutes."""
REUSE_SECONDS = 6 * DAY
"""TTL of a shared result: identical jobs get it for six days, so that its objects outlive the last such job."""
JOB_SECONDS = 600
"""Time limit of one attempt in seconds. By measurement the largest job, 4 megapixels at factor 8, takes two CPU
cores about four minutes."""
DEADLINE_SECONDS = DAY
"""Default deadline in seconds after acceptance: a job that has not ended by then fails."""
MAX_DEADLINE_SECONDS = 6 * DAY
"""Largest deadline that a request may set. It is below EVENTS_SECONDS, so that events and record outlive the job."""
QUOTA_SECONDS = EVENTS_SECONDS + 7 * DAY
"""TTL of the quotas of an API key, renewed by each submission. The limit must outlive every job that is charged to it:
a job may end after MAX_DEADLINE_SECONDS, and its dead letter may be replayed for EVENTS_SECONDS."""
LEASE_SECONDS = 12
"""A job is given to another worker this many seconds after its worker's last renewal. A restart of Redis must fit
into that time."""
HEARTBEAT_SECONDS = 2
"""Interval in seconds at which a worker renews its leases."""
QUIET_SECONDS = 5
"""If no worker has run `recover` for this many seconds, Redis was unreachable and no worker could renew its leases;
then all leases are extended first."""
AUDIT_SECONDS = 10
"""Interval in seconds at which one of the workers looks for jobs that are nowhere, because another program has removed
them from the queue."""
CLOCK_SECONDS = 120
"""A lease or a rate limit never lies further ahead than that. When it does, the clock of Redis has gone back since: it
was set, or a replica with another clock was promoted."""
POPPED_SECONDS = 5
"""A popped job that is not taken within this many seconds goes back into the queue. A living worker takes it within
milliseconds."""
WORKER_SECONDS = LEASE_SECONDS
"""TTL of a worker's record, which each heartbeat renews; after it the worker is not listed any more."""
SUSPECT_DEATHS = 1
"""A job that this many workers have died with is done alone: a worker that takes it ends its other jobs first."""
ATTEMPTS = 3
"""A job fails after this many of its workers have died, if it was alone in all but the first of them and no other
worker died meanwhile: so a job that kills workers does not kill all of them, and no job
fails for what another job did."""
MAX_ATTEMPTS = 6
"""A job that was alone in its last worker fails after this many deaths, even if other workers died at the same times:
an innocent job hardly meets so many."""
RETURNS = 5
"""A job fails when workers have handed it back more often, because they could not use the store or load the model."""
OUTDATED_SECONDS = 600
"""A job that no worker's release knows fails this many seconds after the first worker said so: longer than it takes to
update a deployment, and to scale it from zero."""
MAX_DEAD_LETTERS = 10_000
"""Maximum number of dead letters that are kept; the oldest are deleted first."""
PREVIEW_SECONDS = 600
"""TTL of a job's preview, renewed by each piece: as long as one attempt may run."""
WEBHOOK_SECONDS = 3 * DAY
"""TTL of a webhook's record: longer than all delivery attempts take together (about 35 hours)."""
WEBHOOK_LEASE_SECONDS = 30
"""A worker that sends a webhook has it for this many seconds; then it becomes due again, since the worker has died."""
RATE_SECONDS = 30 * DAY
"""TTL of the statistics of job durations, renewed by each job: older ones say little about today's machines."""
SERVED_MODEL_SECONDS = 60
"""TTL of a served model, which workers extend while they have the model in memory; then the registry is asked."""
OUTCOMES_SECONDS = 30 * DAY
"""TTL of the counts of a canary's jobs, renewed by each job: after a month without a job they begin at zero."""
VERDICT_SECONDS = 7 * DAY
"""TTL of the verdicts on a version, renewed by each: after a week without one a version is tried again."""
TRYING_SECONDS = 15
"""TTL of the lease of a worker that tries a version, which it renews every 2 seconds: then it has died."""
LIMITS_SECONDS = 30 * DAY
"""TTL of sizes that were reduced for lack of memory: after a month a worker tries the default sizes again."""


def events(job_id: str) -> str:
    """Redis key of the job's event stream."""
    return f"upres:job:{job_id}:events"


def record(job_id: str) -> str:
    """Redis key of RQ's own record of a job."""
    return f"rq:job:{job_id}"


def run(job_id: str) -> str:
    """Redis key of a job's hash with holder, attempt and deaths, which exists until the job ends."""
    return f"upres:job:{job_id}:run"


def worker(name: str) -> str:
    """Redis key of a worker's record."""
    return f"upres:worker:{name}"


def channel(job_id: str) -> str:
    """Pub/sub channel on which the job's events are published."""
    return f"upres:job:{job_id}"


def work(owner: str | None, image: bytes, model_digest: str, factor: int, kind: str) -> str:
    """Redis key of a piece of work: jobs with the same key have the same result and share it.

    `kind` is the format of the result's file, and what else the job's options change in it. The owner is part of the
    key, so that a client cannot find out which images other clients sent.
    """
    name = f"{owner}:{hashlib.sha256(image).hexdigest()}:{model_digest}:{factor}:{kind}"
    return f"upres:work:{hashlib.sha256(name.encode()).hexdigest()}"


def api_key_jobs(key_id: str) -> str:
    """Redis key of an API key's jobs that have not ended, and of the submissions that were admitted a moment ago."""
    return f"upres:key:{key_id}:jobs"


def idempotency(key: str) -> str:
    """Redis key for a client's Idempotency-Key. It contains a hash, so that no text from clients is in a Redis key."""
    return f"upres:idempotency:{hashlib.sha256(key.encode()).hexdigest()}"


def served_model(name: str) -> str:
    """Redis key of a served model: which version each of its labels means."""
    return f"upres:model:{name}"


def outcomes(name: str) -> str:
    """Redis key of the numbers of succeeded and failed jobs of a model's canaries."""
    return f"upres:model:{name}:outcomes"


def verdicts(name: str, digest: str) -> str:
    """Redis key of the verdicts on a model version, by the kind of worker that tried it."""
    return f"upres:model:{name}:verdict:{digest}"


def trying(name: str, digest: str, kind: str) -> str:
    """Redis key of the lease of the worker that tries a model version for workers of its kind."""
    return f"upres:model:{name}:trying:{hashlib.sha256(f'{digest} {kind}'.encode()).hexdigest()}"


def rate(digest: str, factor: int, ensemble: bool = False, first_digest: str | None = None) -> str:
    """Redis key of the statistics of job durations for model versions (by their digests), factor and ensemble."""
    return f"upres:rate:{digest}:{factor}{_mark(ensemble, first_digest)}"


def _mark(ensemble: bool, first_digest: str | None) -> str:
    return (":ensemble" if ensemble else "") + (f":after:{first_digest}" if first_digest else "")


def preview(job_id: str) -> str:
    """Redis key of the previews of a running job's finished tiles."""
    return f"upres:job:{job_id}:preview"


def limits(device: str, memory: int, model_digest: str, precision: str) -> str:
    """Redis key of the limits with which a model fits into a device's memory (bytes); only where it once did not."""
    name = f"{device}:{memory}:{model_digest}:{precision}"
    return f"upres:tile:{hashlib.sha256(name.encode()).hexdigest()}"


def upload(name: str) -> str:
    """Object key of an uploaded image. The name must be secret: any client that knows it can use the image."""
    return f"uploads/{name}"


def new_upload(sha256: str | None = None) -> str:
    """Make a new object key for an image. It ends with 124 bits of the image's digest, when the client states that."""
    return upload(secrets.token_hex(16) + (f"-{sha256[:31]}" if sha256 else ""))


def upload_content(image_key: str) -> str:
    """Return what uploads of the same image have in common: the digest in the object key, else the whole key."""
    stated = _UPLOAD.fullmatch(image_key)
    return stated["digest"] if stated else image_key


def is_content(image_key: str, data: bytes) -> bool:
    """Whether an uploaded image has the digest that its object key states, if it states one."""
    stated = _UPLOAD.fullmatch(image_key)
    return stated is None or hashlib.sha256(data).hexdigest().startswith(stated["digest"])


def result(owner: str | None, job_id: str, attempt: int, extension: str) -> str:
    """Object key of the enlarged image. Each attempt has its own key, so that a late worker overwrites nothing.

    It contains the owner, because jobs of one owner share results: so it shows for which jobs a link may be made.
    """
    return f"results/{owner or NO_OWNER}/{job_id}/{attempt}/sr.{extension}"


def original(owner: str | None, job_id: str, attempt: int, extension: str) -> str:
    """Object key of the bicubic enlargement."""
    return f"results/{owner or NO_OWNER}/{job_id}/{attempt}/original.{extension}"


def originals(owner: str | None) -> str:
    """Sorted set: the jobs that make originals for an owner, by their deadline."""
    return f"upres:key:{owner or ''}:originals"


def source(original: str) -> str:
    """Object key of the image from which an original is made; no link is ever made for it."""
    return f"{original.rpartition('/')[0]}/source"


def is_result_of(owner: str | None, key: str) -> bool:
    """Whether an object key is that of an image of a job of this owner."""
    found = _RESULT.fullmatch(key)
    return found is not None and found["owner"] == (owner or NO_OWNER)


def checkpoint(job_id: str, work: str, rows: str) -> str:
    """Object key of the finished rows of a job, `first-last`; `work` is the Redis key of its piece of work."""
    return f"checkpoints/{job_id}/{work.rpartition(':')[2][:16]}/{rows}.png"


def model(name: str, version: str, file: str) -> str:
    """Object key of one file of a model version. Raises ModelNotFound when no model or version can be called so."""
    model_names.check(name, version)
    return f"models/{name}/{version}/{file}"


def labels(name: str) -> str:
    """Object key of the file that maps a model's labels to versions. Raises ModelNotFound as `model` does."""
    model_names.check(name)
    return f"models/{name}/labels.json"
