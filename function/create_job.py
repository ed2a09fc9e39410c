"""POST /v1/jobs: read the body, submit the job, and wait for its end if the client prefers that."""

import logging

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from upres.core import tracing
from upres.core.api import JobAccepted
from upres.core.errors import UpresError
from upres.core.schema import Snapshot
from upres.function import body, jobs
from upres.function.access import Caller, caller
from upres.function.answers import json_answer
from upres.function.base64_file import Base64File
from upres.function.clients import client_name, sender
from upres.function.job_end import ends_within
from upres.function.json_body import JsonBody
from upres.function.parse import INSTEAD, parse_json, preferred_wait
from upres.function.services import Services
from upres.function.slow_parts import LARGE_BODY
from upres.function.submit import check_limits, submit
from upres.function.threads import Pool, in_thread

log = logging.getLogger("upres.function")


async def create_job(request: Request) -> Response:
    """POST /v1/jobs, or /v1/models/{model}/jobs → 202 and a JobAccepted.

    With `Prefer: wait=SECONDS` (RFC 7240), if the job ends in that time → 200 and its Snapshot.
    """
    services: Services = request.app.state.services
    needs_key = services.settings.access == "keys"  # else nothing is looked up, and no thread is needed
    who = await in_thread(request, caller, services, request, "rate") if needs_key else caller(services, request)
    accepted = await _accepted(request, who)
    headers = {"Location": accepted.status_url}
    if seconds := preferred_wait(", ".join(request.headers.getlist("Prefer"))):
        headers["Preference-Applied"] = f"wait={seconds:g}"
        if done := await _snapshot_at_end(request, accepted.job_id, who, seconds):
            return json_answer(done, 200, **headers)
    return json_answer(accepted, 202, **headers)


async def _accepted(request: Request, who: Caller) -> JobAccepted:
    """Check the limits of the API key, read the body, and submit the job request in it; nothing of it is kept."""
    services: Services = request.app.state.services
    limit = int(services.settings.max_input_bytes * body.BASE64) + body.SLACK
    size = body.declared(request, limit)
    key = request.headers.get("Idempotency-Key")
    if who.key and (size > body.SLACK or "Transfer-Encoding" in request.headers):
        await in_thread(request, check_limits, services, who, key, max(1, int((size - body.SLACK) / body.BASE64)))
    with request.app.state.bodies.share(client_name(request, who.owner)) as share:
        image = Base64File(services.settings.max_input_bytes)
        document = await body.take(request, limit, share, JsonBody(image, INSTEAD))
        async with request.app.state.slow.large.of(sender(request) if image.size > LARGE_BODY else None):
            return await _submitted(request, document, image, who)


async def _submitted(request: Request, document: bytes, image: Base64File, who: Caller) -> JobAccepted:
    """Submit the job request in a body, of which the image was taken out."""
    services: Services = request.app.state.services
    base_url = services.address(request)
    key, traceparent = request.headers.get("Idempotency-Key"), request.headers.get("traceparent")

    def parsed_and_submitted() -> JobAccepted:
        job_request = parse_json(document, request.path_params.get("model"))
        return submit(services, job_request, base_url, key, who, image)

    slow = request.app.state.slow
    threads: Pool = slow.inline if image.size else slow.other
    with tracing.span("POST /v1/jobs", "server", traceparent, url__path=request.url.path):
        return await threads.run(sender(request), parsed_and_submitted)


async def _snapshot_at_end(request: Request, job_id: str, who: Caller, seconds: float) -> Snapshot | None:
    """Wait for the end of a job for at most `seconds`, and return its snapshot.

    None when the job has not ended, or when that cannot be found out: it is accepted, so the client gets its id.
    """
    services: Services = request.app.state.services
    try:
        if await ends_within(request, job_id, seconds):
            return await in_thread(request, jobs.snapshot, services, job_id, who.owner)
    except (UpresError, RedisError, TimeoutError) as error:
        log.warning("job %s is accepted, but its end cannot be waited for: %s", job_id, error)
    return None
