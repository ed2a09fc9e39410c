"""Traces (OpenTelemetry), where they are wanted: one for each job, from the request through Redis to each stage.

They are wanted where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) is set, and then `pip install
"upres[tracing]"` is needed; all else of OpenTelemetry's own variables holds. A job carries its trace's context as
`traceparent` (W3C Trace Context). Elsewhere nothing of this is imported, and nothing is recorded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from upres.core.errors import SettingsError

WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Kind = Literal["internal", "server", "producer", "consumer"]


class _State:
    """Of the process: the tracer, once there is one."""

    tracer: Any = None


def begin(service: str) -> bool:
    """Record this process's spans from now on, as `upres-{service}`, if anybody wants them.

    Raises SettingsError when they are wanted and what makes them is not installed.
    """
    if not any(os.environ.get(name) for name in WANTED):
        return False
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(f'{WANTED[0]} is set: pip install "upres[tracing]" ({error.name} is missing)') from None
    provider = TracerProvider(resource=Resource.create({"service.name": f"upres-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    _State.tracer = trace.get_tracer("upres")
    return True


def end() -> None:
    """Send what was recorded and not sent yet."""
    if _State.tracer:
        from opentelemetry import trace

        provider: Any = trace.get_tracer_provider()
        provider.shutdown()


@contextmanager
def span(name: str, kind: Kind = "internal", parent: str | None = None, **attributes: Any) -> Iterator[Any]:
    """A span around the block, under the one around it, or under `parent`, a traceparent; None where none is recorded.

    Attributes are named by OpenTelemetry's semantic conventions, with `__` for dots.
    """
    if not _State.tracer:
        yield None
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    given = {key.replace("__", "."): value for key, value in attributes.items()}
    context = extract({"traceparent": parent}) if parent else None
    with _State.tracer.start_as_current_span(name, context, SpanKind[kind.upper()], given) as made:
        yield made


def failed(code: str) -> None:
    """What the span around this line is about has failed."""
    if _State.tracer:
        from opentelemetry import trace

        here = trace.get_current_span()
        here.set_status(trace.StatusCode.ERROR, code)
        here.set_attribute("error.type", code)


def traceparent() -> str | None:
    """The context of the span around this line, to be carried elsewhere."""
    if not _State.tracer:
        return None
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


def current() -> dict[str, str]:
    """What log lines say of the span around them."""
    parent = traceparent()
    return {"trace_id": parent.split("-")[1], "span_id": parent.split("-")[2]} if parent else {}
