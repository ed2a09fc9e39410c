"""The function's metrics in Prometheus's format. On Lambda this module is imported at the first scrape only, because
the import takes longer than the rest of a request.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError
from starlette.datastructures import State

from upres.core import backlog, keys
from upres.core.errors import SettingsError, job_codes, tree
from upres.core.listening import any_address
from upres.function.services import Services

if TYPE_CHECKING:
    from upres.function.stream import Hub

WAYS = ("succeeded|", "cancelled|", *(f"failed|{code}" for code in sorted(job_codes())))
"""How a job can end: outcome and code. Prometheus sees no increase in a counter that did not exist before."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one process: its requests and event streams, and the queue at the time of the scrape."""

    def __init__(self, state: State) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(QueueCollector(state.services))
        self.registry.register(StreamCollector(state))
        self.registry.register(ProcessCollector(registry=None))
        self.seconds = Histogram(
            "upres_http_request_seconds",
            "Seconds until the answer begins; an event stream continues after that.",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.errors = Counter(
            "upres_http_errors", "Requests answered with a server error (5xx).", ["status"], registry=self.registry
        )
        for status in {kind.status for kind in tree() if kind.status >= 500}:
            self.errors.labels(status)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer that began after these seconds."""
        self.seconds.labels(method, route, status).observe(seconds)
        if status >= 500:
            self.errors.labels(status).inc()

    def render(self) -> tuple[bytes, int, dict[str, str]]:
        """Return body, status and headers of the answer to a scrape."""
        return generate_latest(self.registry), 200, {"Content-Type": CONTENT_TYPE_LATEST}


@contextmanager
def serve_metrics(state: State) -> Iterator[None]:
    """Measure an app during the block. If metrics_port is set, serve its metrics there too, without access control.

    Raises SettingsError when the port is in use.
    """
    state.metrics = Metrics(state)
    port = state.services.settings.metrics_port
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, any_address(), state.metrics.registry)
    except OSError as error:
        raise SettingsError(f"UPRES_METRICS_PORT: {port} cannot be listened on ({error.strerror})") from None
    yield
    server.shutdown()
    server.server_close()
    thread.join()


class QueueCollector(Collector):
    """Metrics of queue, workers and ended jobs, read from Redis; and the object store's errors in this process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Read the metrics for one scrape (see prometheus_client)."""
        errors = CounterMetricFamily("upres_store_errors", "Requests to the object store that failed.", labels=["kind"])
        for kind, failed in self._services.store.failures.items():
            errors.add_metric([kind], failed)
        yield errors
        try:
            now = backlog.read(self._services.redis)
            ended: Any = self._services.redis.hgetall(keys.JOB_COUNTS)
        except RedisError:  # the process's own metrics are needed most when Redis fails
            yield GaugeMetricFamily("upres_redis_up", "Whether Redis answers.", value=0)
            return
        yield GaugeMetricFamily("upres_redis_up", "Whether Redis answers.", value=1)
        yield from _memory(self._services.redis)
        yield from _queue(now)
        yield _ended({field.decode(): int(count) for field, count in ended.items()}, self._services.settings.model)

    def describe(self) -> Iterable[Metric]:
        """Describe no metrics; else the registry would call `collect`, and thus Redis, at registration."""
        return ()


def _memory(redis: Redis) -> Iterable[Metric]:
    """Metrics of Redis's memory; none when the Redis user may not run INFO."""
    try:
        info: Any = redis.info("memory")
    except NoPermissionError:
        return
    used, most = info["used_memory"], info.get("maxmemory") or 0
    yield GaugeMetricFamily("upres_redis_memory_bytes", "Bytes of memory that Redis uses.", value=used)
    yield GaugeMetricFamily("upres_redis_memory_limit_bytes", "Memory limit of Redis; 0: none.", value=most)


def _ended(counts: dict[str, int], default: str) -> Metric:
    """How jobs ended, of the default model and all others that had jobs; 0 for each way in which none ended yet."""
    jobs = CounterMetricFamily("upres_jobs", "Jobs that ended.", labels=["model", "outcome", "code"])
    models = {default, *(field.partition("|")[0] for field in counts)}
    for field, count in {**{f"{model}|{way}": 0 for model in models for way in WAYS}, **counts}.items():
        jobs.add_metric(field.split("|"), count)
    return jobs


def _queue(now: backlog.Backlog) -> Iterable[Metric]:
    yield GaugeMetricFamily("upres_queue_jobs", "Jobs waiting in the queue.", value=now.waiting)
    oldest = "Seconds since the oldest waiting job was accepted."
    yield GaugeMetricFamily("upres_queue_oldest_seconds", oldest, value=now.oldest_seconds)
    yield GaugeMetricFamily("upres_running_jobs", "Jobs that workers hold.", value=now.running)
    nowhere = "Unfinished jobs that another program took from the queue, until a worker finds them."
    yield GaugeMetricFamily("upres_nowhere_jobs", nowhere, value=now.nowhere)
    yield GaugeMetricFamily("upres_dead_letters", "Dead letters, see `upres jobs dead`.", value=now.dead)
    yield GaugeMetricFamily("upres_workers", "Workers that are ready.", value=now.workers)
    yield GaugeMetricFamily("upres_worker_slots", "Jobs that ready workers run at once.", value=now.slots)


class StreamCollector(Collector):
    """Metrics of this process's event streams."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Read the metrics for one scrape (see prometheus_client)."""
        hub: Hub | None = getattr(self._state, "hub", None)
        if hub:
            yield GaugeMetricFamily("upres_sse_subscribers", "Open event streams.", value=hub.subscribers)
