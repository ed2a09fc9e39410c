"""The HTTP interface: one ASGI app, the same under uvicorn, in a container and on Lambda."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from upres.core import tracing, webhooks
from upres.core.settings import Settings
from upres.function import body, jobs, model_list, problems, stream, uploads
from upres.function.access import caller, reader
from upres.function.answers import json_answer, redirect
from upres.function.clients import sender
from upres.function.create_job import create_job
from upres.function.descriptors import StreamGate
from upres.function.estimate import estimate
from upres.function.health import healthz, metrics, readyz
from upres.function.job_events import job_events
from upres.function.middleware import Identified, Interruptible, Measured, SafeHeaders
from upres.function.originals import job_original
from upres.function.parse import parse_estimate, parse_upload
from upres.function.services import Services
from upres.function.slow_parts import SlowParts
from upres.function.stream_places import StreamPlaces
from upres.function.threads import Pool, in_thread
from upres.function.web_page import page

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


async def create_upload(request: Request) -> Response:
    """POST /v1/uploads → 201 and an UploadLink, a presigned URL for an image file."""
    services = _services(request)
    who = await in_thread(request, caller, services, request, "rate")
    upload = parse_upload(await body.read(request, body.SLACK))
    return json_answer(await in_thread(request, uploads.create, services, upload, who), 201)


async def create_estimate(request: Request) -> Response:
    """POST /v1/estimate → an Estimate of a job's result and duration."""
    services = _services(request)
    who = await in_thread(request, caller, services, request, "rate")
    asked = parse_estimate(await body.read(request, body.SLACK))
    return json_answer(await request.app.state.slow.inline.run(sender(request), estimate, services, asked, who))


class OneJob(HTTPEndpoint):
    """/v1/jobs/{id}."""

    async def get(self, request: Request) -> Response:
        """GET → the job's Snapshot."""
        return json_answer(await in_thread(request, lambda: jobs.snapshot(*_job(request))))

    async def delete(self, request: Request) -> Response:
        """DELETE → cancel the job, and return its Snapshot."""
        return json_answer(await in_thread(request, lambda: jobs.cancel(*_job(request, by_token=False))))


async def job_result(request: Request) -> Response:
    """GET /v1/jobs/{id}/result → redirect to a new presigned URL of the enlarged image."""
    return redirect(await in_thread(request, lambda: jobs.link(*_job(request))))


async def job_preview(request: Request) -> Response:
    """GET /v1/jobs/{id}/preview?after=N → the finished pieces of the enlarged image, without the first N."""
    after = request.query_params.get("after", "0")
    return json_answer(await in_thread(request, lambda: jobs.preview(*_job(request), after)))


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
    return json_answer(model_list.listing(services, await request.app.state.slow.models.get()))


async def read_model(request: Request) -> Response:
    """GET /v1/models/{model} → one model with its versions."""
    services = _services(request)
    await in_thread(request, caller, services, request)
    index = await request.app.state.slow.models.get()
    return json_answer(model_list.details(services, index, request.path_params["model"]))


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
