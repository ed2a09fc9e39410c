"""What probes and operators ask: whether this process answers, whether Redis and the store do, and its metrics."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upres.core.errors import MetricsPrivate
from upres.function.access import caller
from upres.function.services import Services


async def healthz(request: Request) -> Response:
    """GET /healthz → 200 while the process answers. It is async, so threads that wait for Redis do not delay it."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """GET /readyz → 200 when Redis and the object store answer, else a 503 that names the one that does not.

    `address` is the one that answers name to this client; `upres doctor` compares it with the one that it asked.
    """
    await request.app.state.slow.ready.get()
    services: Services = request.app.state.services
    return JSONResponse({"status": "ok", "redis": "ok", "store": "ok", "address": services.address(request)})


def metrics(request: Request) -> Response:
    """GET /metrics → metrics in Prometheus's text format, for this machine; other clients are not the operator."""
    services: Services = request.app.state.services
    if services.settings.access:
        raise MetricsPrivate("Metrics are served on the port in UPRES_METRICS_PORT only, which operators can reach.")
    caller(services, request)
    from upres.function.metrics import Metrics

    state = request.app.state
    measured: Metrics = getattr(state, "metrics", None) or Metrics(state)
    return Response(*measured.render())
