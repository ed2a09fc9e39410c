"""The HTTP interface: one ASGI app, the same under uvicorn, in a container and on Lambda."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from upres.core import events, tracing, webhooks
from upres.core.api import JobAccepted
from upres.core.errors import QueueUnavailable
from upres.core.schema import TolerantModel
from upres.core.settings import Settings
from upres.function import body, buffered, jobs, model_list, problems, stream, uploads
from upres.function.access import Caller, caller, reader
from upres.function.clients import client_name, sender
from upres.function.descriptors import StreamGate
from upres.function.estimate import estimate
from upres.function.health import healthz, metrics, readyz
from upres.function.middleware import Identified, Interruptible, Measured, SafeHeaders
from upres.function.parse import parse_estimate, parse_json, parse_upload, preferred_wait
from upres.function.services import Services
from upres.function.slow_parts import LARGE_BODY, SlowParts
from upres.function.stream_places import HeldStream, StreamPlaces
from upres.function.submit import submit
from upres.function.threads import Pool, in_thread
from upres.function.web_page import page

BASE64 = 1.4
"""Maximum size of an image in base64, relative to its file: a third more, and a little for line breaks."""
BODY_SLACK = 64 * 1024
"""Maximum bytes of a request body besides the image: field names, a long URL, a file name."""
ALLOWED_HEADERS = [
    *("Authorization", "Cache-Control", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer"),
    *("traceparent", "tracestate", "X-Request-ID"),
]
"""Request headers that pages of other origins may send (CORS); libraries for tracing add some by themselves."""
THIS_MACHINE = r"https?://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?"
"""Origins of pages of this machine, which may read answers where UPRES_ACCESS is not set."""
FULL_COLLECTION = 200
"""Number of collections of the middle generation before a full garbage collection; Python's default is 10."""


class App(Starlette):
    """Starlette with middleware outside of its error handler, so that answers to unexpected errors get headers too."""

    def build_middleware_stack(self) -> ASGIApp:
        """Put CORS, the safe headers and the measurement around Starlette's own middleware stack."""
        settings: Settings = self.state.services.settings
        cors = CORSMiddleware(
            super().build_middleware_stack(),
            allow_origins=list(settings.allowed_origins),
            allow_origin_regex=None if settings.access else THIS_MACHINE,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=["Location", "Preference-Applied", "Retry-After", "X-Request-ID"],
        )
        return Measured(SafeHeaders(Identified(Interruptible(body.Lingering(cors)))))


def create_app(settings: Settings | None = None) -> Starlette:
    """Create the app. Settings are read from the environment unless they are given. Raises SettingsError."""
    services = Services(settings or Settings.from_environment())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.hub = stream.Hub(services.settings)
        _collect_rarely()
        yield
        await app.state.hub.close()
        await run_in_threadpool(tracing.end)  # here, because uvicorn.run does not return after a signal

    app = App(routes=ROUTES, exception_handlers=problems.HANDLERS, lifespan=lifespan)
    app.router.redirect_slashes = False  # a redirect would name the client's Host, with http
    app.state.services, app.state.slow = services, SlowParts(services)
    app.state.threads = Pool()
    app.state.gate, app.state.places, app.state.bodies = StreamGate(), StreamPlaces(), body.Bodies()
    return app


def _collect_rarely() -> None:
    """Make full garbage collections rare: with thousands of streams each one stops all of them for 0.2 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION)


async def create_job(request: Request) -> Response:
    """POST /v1/jobs, or /v1/models/{model}/jobs → 202 and a JobAccepted.

    With `Prefer: wait=SECONDS` (RFC 7240), if the job ends in that time → 200 and its Snapshot.
    """
    services = _services(request)
    who = await in_thread(request, caller, services, request, "rate")
    limit = int(services.settings.max_input_bytes * BASE64) + BODY_SLACK
    bodies, large = request.app.state.bodies, request.app.state.slow.large
    async with (
        bodies.reading(request, limit, client_name(request, who.owner)) as sent,
        large.of(sender(request) if len(sent) > LARGE_BODY else None),
    ):
        accepted = await _submitted(request, sent, who)
    del sent  # the answer may wait for the end of the job
    headers = {"Location": accepted.status_url}
    if seconds := preferred_wait(", ".join(request.headers.getlist("Prefer"))):
        headers["Preference-Applied"] = f"wait={seconds:g}"
        if await _ends_within(request, accepted.job_id, seconds):
            done = await in_thread(request, jobs.snapshot, services, accepted.job_id, who.owner)
            return _json(done, 200, **headers)
    return _json(accepted, 202, **headers)


async def _submitted(request: Request, sent: bytes, who: Caller) -> JobAccepted:
    """Submit the job request in a body."""
    services, slow = _services(request), request.app.state.slow
    job_request = await in_thread(request, parse_json, sent, request.path_params.get("model"))
    base_url = services.address(request)
    key, traceparent = request.headers.get("Idempotency-Key"), request.headers.get("traceparent")
    threads: Pool = slow.other if job_request.image_base64 is None else slow.inline
    with tracing.span("POST /v1/jobs", "server", traceparent, url__path=request.url.path):
        return await threads.run(sender(request), submit, services, job_request, base_url, key, who)


async def _ends_within(request: Request, job_id: str, seconds: float) -> bool:
    """Wait for the end of a job for at most `seconds`. Return whether it has ended."""
    if "aws.event" in request.scope:  # Lambda starts an event loop per invocation, so there is no Hub
        return await run_in_threadpool(buffered.wait, _services(request).settings, job_id, seconds)
    with suppress(TimeoutError, QueueUnavailable, RedisError):  # the job is already accepted, so answer 202
        async with asyncio.timeout(seconds):
            ended: bool = await request.app.state.hub.ended(job_id)
            return ended
    return False


async def create_upload(request: Request) -> Response:
    """POST /v1/uploads → 201 and an UploadLink, a presigned URL for an image file."""
    services = _services(request)
    who = await in_thread(request, caller, services, request, "rate")
    upload = parse_upload(await body.read(request, BODY_SLACK))
    return _json(await in_thread(request, uploads.create, services, upload, who), 201)


async def create_estimate(request: Request) -> Response:
    """POST /v1/estimate → an Estimate of a job's result and duration."""
    services = _services(request)
    who = await in_thread(request, caller, services, request, "rate")
    asked = parse_estimate(await body.read(request, BODY_SLACK))
    return _json(await request.app.state.slow.inline.run(sender(request), estimate, services, asked, who))


class OneJob(HTTPEndpoint):
    """/v1/jobs/{id}."""

    async def get(self, request: Request) -> Response:
        """GET → the job's Snapshot."""
        return _json(await in_thread(request, lambda: jobs.snapshot(*_job(request))))

    async def delete(self, request: Request) -> Response:
        """DELETE → cancel the job, and return its Snapshot."""
        return _json(await in_thread(request, lambda: jobs.cancel(*_job(request, by_token=False))))


async def job_result(request: Request) -> Response:
    """GET /v1/jobs/{id}/result → redirect to a new presigned URL of the enlarged image."""
    return _redirect(await in_thread(request, lambda: jobs.link(*_job(request), "result")))


async def job_original(request: Request) -> Response:
    """GET /v1/jobs/{id}/original → redirect to a new presigned URL of the bicubic enlargement."""
    return _redirect(await in_thread(request, lambda: jobs.link(*_job(request), "original")))


async def job_events(request: Request) -> Response:
    """GET /v1/jobs/{id}/events → server-sent events after Last-Event-ID, until the job ends.

    204 when Last-Event-ID is the job's last event: an EventSource then does not reconnect.
    """
    services, job_id = _services(request), request.path_params["job_id"]
    permit = await in_thread(request, reader, services, request, job_id, None)
    jobs.check_id(job_id)
    after = stream.check_id(request.headers.get("Last-Event-ID") or request.query_params.get("last_event_id"))
    on_lambda = "aws.event" in request.scope
    if on_lambda:
        last_id, last_event = await in_thread(request, jobs.last_event, services, job_id, permit.owner)
    else:
        ends = await request.app.state.hub.first_and_last(job_id)
        last_id, last_event = jobs.check_owner(job_id, permit.owner, ends)
    if events.is_terminal(last_event) and stream.reached(after, last_id):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":  # over at once: the connection's next request must not wait for the end of the job
        return StreamingResponse(iter(()), headers=headers, media_type="text/event-stream")
    request.app.state.gate.check(request)
    if on_lambda:  # API Gateway buffers answers, so answer with some events; the EventSource reconnects for more
        fresh = await run_in_threadpool(buffered.poll, services.settings, job_id, after)
        text = "retry: 250\n\n" + "".join(frame.text for frame in fresh)
        return Response(text, headers=headers, media_type="text/event-stream")
    leave = request.app.state.places.take(job_id, client_name(request, None if permit.secret else permit.owner))
    return HeldStream(request.app.state.hub.follow(job_id, after, permit), headers, leave)


async def job_preview(request: Request) -> Response:
    """GET /v1/jobs/{id}/preview?after=N → the finished pieces of the enlarged image, without the first N."""
    after = request.query_params.get("after", "0")
    return _json(await in_thread(request, lambda: jobs.preview(*_job(request), after)))


async def webhook_secret(request: Request) -> Response:
    """GET /v1/webhook-secret → the secret that signs webhooks for the caller's jobs."""
    services = _services(request)
    who = await in_thread(request, caller, services, request)
    secret = await in_thread(request, webhooks.secret, services.redis, who.owner)
    return JSONResponse({"secret": secret}, headers={"Cache-Control": "no-store"})


async def list_models(request: Request) -> Response:
    """GET /v1/models → all models."""
    services = _services(request)
    await in_thread(request, caller, services, request)
    return _json(model_list.listing(services, await request.app.state.slow.models.get()))


async def read_model(request: Request) -> Response:
    """GET /v1/models/{model} → one model with its versions."""
    services = _services(request)
    await in_thread(request, caller, services, request)
    index = await request.app.state.slow.models.get()
    return _json(model_list.details(services, index, request.path_params["model"]))


def openapi(request: Request) -> Response:
    """GET /openapi.json → the OpenAPI description of this API."""
    from upres.function.openapi import document

    return JSONResponse(document())


def _job(request: Request, by_token: bool = True) -> tuple[Services, str, str | None]:
    """The services, the job's id, and the owner that the job must have."""
    services, job_id = _services(request), request.path_params["job_id"]
    owner = reader(services, request, job_id).owner if by_token else caller(services, request).owner
    return services, job_id, owner


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _json(message: TolerantModel, status: int = 200, **headers: str) -> Response:
    text = message.model_dump_json(exclude_none=True)
    return Response(text, status, {"Cache-Control": "no-store", **headers}, media_type="application/json")


def _redirect(link: str) -> Response:
    return RedirectResponse(link, 302, {"Cache-Control": "no-store"})


ROUTES = [
    Route("/", page),
    Route("/web/{file}", page),
    Route("/v1/jobs", create_job, methods=["POST"]),
    Route("/v1/uploads", create_upload, methods=["POST"]),
    Route("/v1/estimate", create_estimate, methods=["POST"]),
    Route("/v1/webhook-secret", webhook_secret),
    Route("/v1/models", list_models),
    Route("/v1/models/{model}", read_model),
    Route("/v1/models/{model}/jobs", create_job, methods=["POST"]),
    Route("/v1/jobs/{job_id}", OneJob),
    Route("/v1/jobs/{job_id}/events", job_events),
    Route("/v1/jobs/{job_id}/preview", job_preview),
    Route("/v1/jobs/{job_id}/result", job_result),
    Route("/v1/jobs/{job_id}/original", job_original),
    Route("/healthz", healthz),
    Route("/readyz", readyz),
    Route("/metrics", metrics),
    Route("/openapi.json", openapi),
]
