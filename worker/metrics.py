"""Prometheus metrics that a worker counts while it works. worker/probes.py serves them, with those that
worker/collector.py reads. Labels have few values: stages, models, types of events, error codes.

How jobs ended is counted in Redis (core/jobs.lua) and served by the function, because the counts of a worker are lost
when it ends.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from upres.core.errors import FetchError, tree

REGISTRY = CollectorRegistry()
"""All metrics of this worker process."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Upper bounds of the histograms' buckets, in seconds, up to the time limit of one attempt."""

STAGE_SECONDS = Histogram(
    "upres_stage_seconds", "Time of each stage of a job.", ["stage", "model"], buckets=SECONDS, registry=REGISTRY
)
WAIT_SECONDS = Histogram(
    "upres_wait_seconds", "Time from acceptance of a job until a worker took it.", buckets=SECONDS, registry=REGISTRY
)
ATTEMPTS = Counter("upres_attempts", "Attempts at jobs: each retry counts again.", ["model"], registry=REGISTRY)
EVENTS = Counter("upres_events_published", "Events published about jobs.", ["type"], registry=REGISTRY)
FETCH_ERRORS = Counter("upres_fetch_errors", "Images that could not be fetched.", ["code"], registry=REGISTRY)
COLD_START_SECONDS = Gauge(
    "upres_cold_start_seconds", "Time from the start of the process until it took jobs.", registry=REGISTRY
)
# Prometheus sees no increase in a counter that did not exist before, so each kind is there before it happens.
for _type in ("started", "progress", "succeeded", "failed"):
    EVENTS.labels(_type)
for _kind in tree(FetchError):
    FETCH_ERRORS.labels(_kind.code)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
