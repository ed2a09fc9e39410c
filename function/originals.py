"""GET /v1/jobs/{id}/original: redirect to the original of a result. If it is not made yet, a worker makes it first.

Such a job is at the front of the queue, because somebody waits for its image, and takes no place among the jobs of its
API key. So a key may have few of them at once.
"""

import secrets
from datetime import timedelta
from typing import Any

from redis import Redis
from redis.client import Pipeline
from starlette.requests import Request
from starlette.responses import Response

from upres.core import events, keys
from upres.core.enqueue import enqueue
from upres.core.errors import NoResult, OriginalNotReady, TimedOut, WorkerLost
from upres.core.job_message import JobMessage
from upres.core.schema import Failed, Result, Succeeded, now
from upres.function import jobs
from upres.function.access import Permit, original_of, reader
from upres.function.answers import redirect
from upres.function.clients import client_name
from upres.function.job_end import ends_within
from upres.function.parse import preferred_wait
from upres.function.services import Services
from upres.function.threads import in_thread

WAIT_SECONDS = 20.0
"""Longest wait for the worker, unless the request prefers another: shorter than the timeouts of gateways."""
DEADLINE = timedelta(minutes=10)
"""Time that a worker has for the job of an original."""
AT_ONCE = 16
"""Originals of one owner that may be in work or wait."""
MODEL = "bicubic"
"""Stands for the model in the events of such a job."""


async def job_original(request: Request) -> Response:
    """GET /v1/jobs/{id}/original → redirect to a new presigned URL of the bicubic enlargement.

    The first request waits until a worker has made it, for `Prefer: wait=SECONDS` (RFC 7240) or WAIT_SECONDS at most.
    """
    services: Services = request.app.state.services
    job_id = request.path_params["job_id"]
    permit = await in_thread(request, reader, services, request, job_id, "reads", original_of(job_id))
    result = await in_thread(request, jobs.result, services, job_id, permit.owner)
    link = await in_thread(request, jobs.link_of, services, job_id, permit.owner, result, "original")
    if result.original == "lazy":
        await _wait_until_made(request, job_id, result, permit)
    return redirect(link)


async def _wait_until_made(request: Request, job_id: str, result: Result, permit: Permit) -> None:
    """Wait until the original of a result is made. Raises OriginalNotReady, or NoResult if it cannot be made.

    A request that waits takes a place, as an event stream does, and a HEAD does not wait.
    """
    job = _JobOfOriginal(request.app.state.services, result, permit.owner)
    making = await in_thread(request, job.begun)
    if not making:
        return
    if request.method != "HEAD":
        request.app.state.gate.check(request)
        leave = request.app.state.places.take(job_id, client_name(request, None if permit.secret else permit.owner))
        try:
            seconds = preferred_wait(", ".join(request.headers.getlist("Prefer"))) or WAIT_SECONDS
            if await ends_within(request, making, seconds) and not await in_thread(request, job.begun):
                return
        finally:
            leave()
    raise OriginalNotReady("A worker makes the bicubic enlargement; ask for it again in a few seconds.")


class _JobOfOriginal:
    """The job that makes an original, once for all results that share it.

    Its id is kept in Redis, as an Idempotency-Key is: see core/enqueue.py, JobRecord.
    """

    def __init__(self, services: Services, result: Result, owner: str | None) -> None:
        self._services, self._result, self._owner = services, result, owner
        self._image = services.store.key(result.original_image_uri)
        # No client can send such a key: theirs are printable.
        self.key = keys.idempotency(f"{owner or ''}:\n{self._image}")
        self._others = keys.originals(owner)

    def begun(self) -> str | None:
        """Return the id of the job, which is put into the queue if there is none; None if the original is made.

        Raises NoResult when the job failed for good, OriginalNotReady while AT_ONCE others of the owner have not ended,
        StoreUnavailable or redis-py's errors.
        """
        connection = self._services.redis
        try:
            known = self.find(connection)
        except NoResult:
            if self._services.store.exists(self._image):  # an operator has replayed the job
                return None
            raise
        if known is None:
            self._check_others(connection)
            message = self._message()
            known = enqueue(self._services.queue, message, high=True, record=self).job_id
            connection.zadd(self._others, {known: message.deadline.timestamp()})
            connection.expire(self._others, keys.EVENTS_SECONDS)
        return None if isinstance(_last(connection, known), Succeeded) else known

    def _check_others(self, connection: Redis) -> None:
        """Forget those jobs that have ended. Raises OriginalNotReady while too many have not."""
        listed: Any = connection.zrange(self._others, 0, -1)
        with connection.pipeline(transaction=False) as pipeline:
            for other in listed:
                pipeline.xrevrange(keys.events(other.decode(errors="replace")), count=1)
            last = [events.parse(answer) for answer in pipeline.execute()]
        together = zip(listed, last, strict=True)
        if ended := [other for other, found in together if not found or events.is_terminal(found[-1][1])]:
            connection.zrem(self._others, *ended)
        if len(listed) - len(ended) >= AT_ONCE:
            raise OriginalNotReady(f"{AT_ONCE} other bicubic enlargements are being made; ask again in a few seconds.")

    def find(self, connection: "Redis | Pipeline") -> str | None:
        """See JobRecord. A job that failed, but may succeed later, is replaced. Raises NoResult for any other."""
        raw = connection.get(self.key)
        known = raw.decode(errors="replace") if isinstance(raw, bytes) else ""
        last = _last(connection, known) if keys.JOB_ID.fullmatch(known) else None
        if isinstance(last, Failed) and (not last.retryable or last.code in (WorkerLost.code, TimedOut.code)):
            raise NoResult(f"The bicubic enlargement could not be made: {last.message}")
        is_lost = last is None or (events.is_terminal(last) and not isinstance(last, Succeeded))
        return None if is_lost else known

    def write(self, pipeline: Pipeline, job_id: str) -> None:
        """See JobRecord."""
        pipeline.set(self.key, job_id, ex=keys.EVENTS_SECONDS)

    def _message(self) -> JobMessage:
        submitted_at = now()
        return JobMessage(
            job_id=secrets.token_hex(16),
            original_key=self._image,
            image_name=self._result.file_name,
            model=MODEL,
            model_version=MODEL,
            model_digest=MODEL,
            submitted_at=submitted_at,
            deadline=submitted_at + DEADLINE,
            owner=self._owner,
        )


def _last(connection: "Redis | Pipeline", job_id: str) -> Any:
    """Return the last event of a job; None when there is none."""
    answer: Any = connection.xrevrange(keys.events(job_id), count=1)
    entries = events.parse(answer)
    return entries[-1][1] if entries else None
