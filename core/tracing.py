"""Optional traces with OpenTelemetry: one trace per job, from the HTTP request through Redis to each stage.

Tracing is on when `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set; it needs `pip install
"upres[tracing]"`. OpenTelemetry's other variables apply too. A job carries its trace's context as `traceparent` (W3C
Trace Context). When tracing is off, OpenTelemetry is not imported, and nothing is recorded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from upres.core.errors import SettingsError

WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Kind = Literal["internal", "server", "producer", "consumer"]


class _State:
    """The tracer of this process; None until `begin` has made it."""

    tracer: Any = None


def begin(service: str) -> bool:
    """Start to record this process's spans under the service name `upres-{service}`. Return whether tracing is on.

    Raises SettingsError when tracing is on, but OpenTelemetry is not installed.
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
    """Export the spans that were recorded and not exported yet, and stop recording."""
    if _State.tracer:
        from opentelemetry import trace

        provider: Any = trace.get_tracer_provider()
        provider.shutdown()


@contextmanager
def span(name: str, kind: Kind = "internal", parent: str | None = None, **attributes: Any) -> Iterator[Any]:
    """Record a span around the block, as a child of `parent` (a traceparent) or of the current span.

    Yields the span; None when tracing is off. Attributes are named by OpenTelemetry's semantic conventions, with `__`
    in place of dots.
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
    """Mark the current span as failed, with a stable error code."""
    if _State.tracer:
        from opentelemetry import trace

        current_span = trace.get_current_span()
        current_span.set_status(trace.StatusCode.ERROR, code)
        current_span.set_attribute("error.type", code)


def traceparent() -> str | None:
    """Return the context of the current span as a traceparent, for another process; None when tracing is off."""
    if not _State.tracer:
        return None
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


def current() -> dict[str, str]:
    """Return trace_id and span_id of the current span, as fields of log lines; empty when tracing is off."""
    parent = traceparent()
    return {"trace_id": parent.split("-")[1], "span_id": parent.split("-")[2]} if parent else {}
