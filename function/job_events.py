"""GET /v1/jobs/{id}/events: an event stream; behind a gateway that buffers answers, the events that there are."""

import logging

from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from upres.core import events
from upres.core.errors import QueueUnavailable
from upres.function import buffered, jobs, stream
from upres.function.access import Permit, reader
from upres.function.clients import client_name
from upres.function.services import Services
from upres.function.stream_places import HeldStream
from upres.function.threads import in_thread

log = logging.getLogger("upres.function")

HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
SOON = "retry: 250\n\n"
"""Milliseconds after which an EventSource asks for the next events (WHATWG HTML, section 9.2.6)."""
WAITING = "retry: 2000\n\n: waiting for the queue\n\n"
"""What a stream behind a gateway says while Redis is away: an EventSource gives up for good after any other status
than 200, and a stream that uvicorn sends goes on, too."""


async def job_events(request: Request) -> Response:
    """GET /v1/jobs/{id}/events → server-sent events after Last-Event-ID, until the job ends.

    204 when Last-Event-ID is the job's last event: an EventSource then does not reconnect.
    """
    if not buffered.is_buffered(request):
        return await _streamed(request)
    try:
        return await _polled(request)
    except (RedisError, QueueUnavailable) as error:
        log.warning("redis: %s", error)
        return _text(WAITING)


async def _streamed(request: Request) -> Response:
    permit, job_id, after = await _asked(request)
    ends = await request.app.state.hub.first_and_last(job_id)
    if _is_over(jobs.check_owner(job_id, permit.owner, ends), after):
        return Response(status_code=204)
    if request.method == "HEAD":  # over at once: the connection's next request must not wait for the end of the job
        return _nothing()
    request.app.state.gate.check(request)
    leave = request.app.state.places.take(job_id, client_name(request, None if permit.secret else permit.owner))
    return HeldStream(request.app.state.hub.follow(job_id, after, permit), HEADERS, leave)


async def _polled(request: Request) -> Response:
    """API Gateway buffers answers, so answer with some events; the EventSource reconnects for more."""
    services: Services = request.app.state.services
    permit, job_id, after = await _asked(request)
    if _is_over(await in_thread(request, jobs.last_event, services, job_id, permit.owner), after):
        return Response(status_code=204)
    if request.method == "HEAD":
        return _nothing()
    seconds = min(buffered.POLL_SECONDS, buffered.seconds_left(request))
    fresh = await run_in_threadpool(buffered.poll, services.settings, job_id, after, seconds)
    return _text(SOON + "".join(frame.text for frame in fresh))


async def _asked(request: Request) -> tuple[Permit, str, str]:
    """Return what allows to read the job, its id, and the id of the event after which to begin.

    Raises JobNotFound, InvalidEventId, or what `reader` raises.
    """
    services, job_id = request.app.state.services, request.path_params["job_id"]
    permit = await in_thread(request, reader, services, request, job_id, None)
    jobs.check_id(job_id)
    last_seen = request.headers.get("Last-Event-ID") or request.query_params.get("last_event_id")
    return permit, job_id, stream.check_id(last_seen)


def _is_over(last: events.Entry, after: str) -> bool:
    """Whether the job has ended, and its end is not after the id that the client has seen."""
    last_id, last_event = last
    return events.is_terminal(last_event) and stream.reached(after, last_id)


def _nothing() -> Response:
    return StreamingResponse(iter(()), headers=HEADERS, media_type="text/event-stream")


def _text(frames: str) -> Response:
    return Response(frames, headers=HEADERS, media_type="text/event-stream")
