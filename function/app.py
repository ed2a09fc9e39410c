"""The HTTP interface: one ASGI app, the same under uvicorn, in a container and on Lambda."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from upres.core import events, tracing, webhooks
from upres.core.errors import BodyTooLarge, QueueUnavailable, Unauthorized
from upres.core.schema import TolerantModel
from upres.core.settings import Settings
from upres.function import jobs, model_list, problems, stream, uploads
from upres.function.access import caller, check_token
from upres.function.estimate import estimate
from upres.function.middleware import Measured, SafeHeaders
from upres.function.parse import parse_estimate, parse_json, parse_upload, preferred_wait
from upres.function.services import Services
from upres.function.submit import submit

WEB = Path(__file__).parent.parent / "client" / "web"
WEB_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
BASE64 = 1.4
"""How much larger an image is in base64: a third, and a little more when its lines are wrapped."""
BODY_SLACK = 64 * 1024
"""What a request may need besides the image: field names, a long URL, a file name."""
FULL_COLLECTION = 200
"""Garbage of all ages is collected after so many collections of younger garbage; Python's own number is 10."""


class App(Starlette):
    """With middleware around all of it: Starlette's own place for that is inside of what answers unforeseen errors."""

    def build_middleware_stack(self) -> ASGIApp:
        """See Starlette."""
        settings: Settings = self.state.services.settings
        cors = CORSMiddleware(
            super().build_middleware_stack(),
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer"],
            expose_headers=["Location", "Preference-Applied", "Retry-After"],
        )
        return Measured(SafeHeaders(cors))


def create_app(settings: Settings | None = None) -> Starlette:
    """The app for these settings; by default for the environment's."""
    services = Services(settings or Settings.from_environment())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.hub = stream.Hub(services.settings)
        _collect_rarely()
        yield
        await app.state.hub.close()
        await run_in_threadpool(tracing.end)  # uvicorn does not come back from a signal

    app = App(routes=ROUTES, exception_handlers=problems.HANDLERS, lifespan=lifespan)
    app.state.services = services
    return app


def _collect_rarely() -> None:
    """With thousands of streams a full collection holds all of them up for a fifth of a second, and finds little."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION)


async def create_job(request: Request) -> Response:
    """POST /v1/jobs, or /v1/models/{model}/jobs → 202 and where to follow the job.

    With `Prefer: wait=SECONDS` (RFC 7240) → 200 and the job, when it ends in time.
    """
    services = _services(request)
    who = await run_in_threadpool(caller, services, request)
    body = await _body(request, int(services.settings.max_input_bytes * BASE64) + BODY_SLACK)
    job_request = await run_in_threadpool(parse_json, body, request.path_params.get("model"))
    base_url = services.settings.public_url or str(request.base_url)
    key = request.headers.get("Idempotency-Key")
    traceparent = request.headers.get("traceparent")
    with tracing.span("POST /v1/jobs", "server", traceparent, url__path=request.url.path):
        accepted = await run_in_threadpool(submit, services, job_request, base_url, key, who)
    headers = {"Location": accepted.status_url}
    if seconds := preferred_wait(request.headers.get("Prefer")):
        headers["Preference-Applied"] = f"wait={seconds:g}"
        if await _ends_within(request, accepted.job_id, seconds):
            done = await run_in_threadpool(jobs.snapshot, services, accepted.job_id, who.owner)
            return _json(done, 200, **headers)
    return _json(accepted, 202, **headers)


async def _ends_within(request: Request, job_id: str, seconds: float) -> bool:
    """Whether a job ends in time."""
    if "aws.event" in request.scope:  # no event loop lives from one invocation to the next
        return await run_in_threadpool(stream.wait, _services(request).settings, job_id, seconds)
    with suppress(TimeoutError, QueueUnavailable, RedisError):  # whatever happens, the job is accepted
        async with asyncio.timeout(seconds):
            await request.app.state.hub.ended(job_id)
            return True
    return False


async def create_upload(request: Request) -> Response:
    """POST /v1/uploads → 201 and where to put an image file."""
    services = _services(request)
    who = await run_in_threadpool(caller, services, request)
    upload = parse_upload(await _body(request, BODY_SLACK))
    return _json(await run_in_threadpool(uploads.create, services, upload, who), 201)


async def create_estimate(request: Request) -> Response:
    """POST /v1/estimate → what would become of an image."""
    services = _services(request)
    who = await run_in_threadpool(caller, services, request)
    asked = parse_estimate(await _body(request, BODY_SLACK))
    return _json(await run_in_threadpool(estimate, services, asked, who))


class OneJob(HTTPEndpoint):
    """/v1/jobs/{id}."""

    async def get(self, request: Request) -> Response:
        """The job now."""
        return _json(await run_in_threadpool(lambda: jobs.snapshot(*_job(request))))

    async def delete(self, request: Request) -> Response:
        """The job after cancelling it."""
        return _json(await run_in_threadpool(lambda: jobs.cancel(*_job(request, by_token=False))))


def job_result(request: Request) -> Response:
    """GET /v1/jobs/{id}/result → redirect to a fresh link to the enlarged image."""
    return _redirect(jobs.link(*_job(request), "result"))


def job_original(request: Request) -> Response:
    """GET /v1/jobs/{id}/original → redirect to a fresh link to its bicubic enlargement."""
    return _redirect(jobs.link(*_job(request), "original"))


async def job_events(request: Request) -> Response:
    """GET /v1/jobs/{id}/events → server-sent events after Last-Event-ID, to the end of the job.

    204 when there is nothing after it and never will be: that tells an EventSource to stop.
    """
    services, job_id, owner = await run_in_threadpool(_job, request)
    jobs.check_id(job_id)
    after = stream.check_id(request.headers.get("Last-Event-ID") or request.query_params.get("last_event_id"))
    on_lambda = "aws.event" in request.scope
    if on_lambda:
        last_id, last_event = await run_in_threadpool(jobs.last_event, services, job_id, owner)
    else:
        last_id, last_event = jobs.theirs(job_id, owner, await request.app.state.hub.ends(job_id))
    if events.is_terminal(last_event) and stream.reached(after, last_id):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if on_lambda:  # API Gateway buffers: answer in pieces, the browser comes back for more
        fresh = await run_in_threadpool(stream.poll, services.settings, job_id, after)
        body = "retry: 250\n\n" + "".join(frame.text for frame in fresh)
        return Response(body, headers=headers, media_type="text/event-stream")
    frames = request.app.state.hub.follow(job_id, after)
    return StreamingResponse(frames, headers=headers, media_type="text/event-stream")


def job_preview(request: Request) -> Response:
    """GET /v1/jobs/{id}/preview?after=N → what is finished of the enlarged image, after the first N pieces."""
    return _json(jobs.preview(*_job(request), request.query_params.get("after", "0")))


def webhook_secret(request: Request) -> Response:
    """GET /v1/webhook-secret → what messages to the caller's webhook_url are signed with."""
    services = _services(request)
    secret = webhooks.secret(services.redis, caller(services, request).owner)
    return JSONResponse({"secret": secret}, headers={"Cache-Control": "no-store"})


def list_models(request: Request) -> Response:
    """GET /v1/models → all models."""
    caller(_services(request), request)
    return _json(model_list.listing(_services(request)))


def read_model(request: Request) -> Response:
    """GET /v1/models/{model} → one of them, with its versions."""
    caller(_services(request), request)
    return _json(model_list.details(_services(request), request.path_params["model"]))


async def healthz(request: Request) -> Response:
    """GET /healthz → 200 while the process answers; waits for nobody who waits for Redis or the store."""
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> Response:
    """GET /readyz → 200 when Redis and the object store answer, else a 503 that says which does not."""
    services = _services(request)
    services.redis.ping()
    services.store.ping()
    return JSONResponse({"status": "ok", "redis": "ok", "store": "ok"})


def metrics(request: Request) -> Response:
    """GET /metrics → Prometheus text."""
    caller(_services(request), request)
    from upres.function.metrics import Metrics

    state = request.app.state
    measured: Metrics = getattr(state, "metrics", None) or Metrics(state)
    return Response(*measured.render())


def openapi(request: Request) -> Response:
    """GET /openapi.json → the description of all this."""
    from upres.function.openapi import document

    return JSONResponse(document())


def page(request: Request) -> Response:
    """GET / → a page to try it on; GET /web/{file} → what it consists of."""
    file = WEB / request.path_params.get("file", "index.html")
    if file not in WEB.iterdir():  # the names that there are, and no path that leads elsewhere
        raise HTTPException(404)
    return Response(file.read_bytes(), media_type=WEB_TYPES[file.suffix], headers={"Cache-Control": "no-cache"})


def _job(request: Request, by_token: bool = True) -> tuple[Services, str, str | None]:
    """The services, which job is meant, and whose it has to be: the caller's, or anybody's for a token's bearer."""
    services, job_id = _services(request), request.path_params["job_id"]
    token = request.query_params.get("token") if by_token else None
    if token is None:
        return services, job_id, caller(services, request).owner
    if not check_token(services.token_secret, job_id, token):
        raise Unauthorized("The token of this address is not, or no longer, good for this job; ask for the job anew.")
    return services, job_id, jobs.ANYBODYS


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _json(message: TolerantModel, status: int = 200, **headers: str) -> Response:
    body = message.model_dump_json(exclude_none=True)
    return Response(body, status, {"Cache-Control": "no-store", **headers}, media_type="application/json")


def _redirect(link: str) -> Response:
    return RedirectResponse(link, 302, {"Cache-Control": "no-store"})


async def _body(request: Request, limit: int) -> bytes:
    """The request body, read no further than its limit. Raises BodyTooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(
                f"The request is larger than {limit / 1e6:.1f} MB; send a smaller image, or its image_url."
            )
    return bytes(body)


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
