"""What a worker counts while it works, in Prometheus's terms; shown by worker/probes.py, with what worker/collector.py
reads. Labels have few values: stages, models, kinds of events, codes of errors.

How jobs ended is not counted here, but in Redis (core/jobs.lua), and shown by the function: workers come and go.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

STAGE_SECONDS = Histogram(
    "upres_stage_seconds", "Time of each stage of a job.", ["stage", "model"], buckets=SECONDS, registry=REGISTRY
)
WAIT_SECONDS = Histogram(
    "upres_wait_seconds", "From the acceptance of a job until it was taken.", buckets=SECONDS, registry=REGISTRY
)
ATTEMPTS = Counter(
    "upres_attempts", "Jobs taken, once more for each that was tried again.", ["model"], registry=REGISTRY
)
EVENTS = Counter("upres_events_published", "Events told about jobs.", ["type"], registry=REGISTRY)
FETCH_ERRORS = Counter("upres_fetch_errors", "Images that could not be fetched.", ["code"], registry=REGISTRY)
COLD_START_SECONDS = Gauge(
    "upres_cold_start_seconds", "From the start of the process until it took jobs.", registry=REGISTRY
)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
