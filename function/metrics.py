"""What the function measures, in Prometheus's terms. On Lambda it is imported when somebody scrapes: it would cost more
than the rest of a request.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
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
from upres.core.errors import SettingsError
from upres.function.services import Services

if TYPE_CHECKING:
    from upres.function.stream import Hub

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Of one process: its requests, its streams, and the queue as it is at the moment of a scrape."""

    def __init__(self, state: State) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(QueueCollector(state.services))
        self.registry.register(StreamCollector(state))
        self.registry.register(ProcessCollector(registry=None))
        self.seconds = Histogram(
            "upres_http_request_seconds",
            "Until an answer begins; that of a stream goes on for longer.",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def render(self) -> tuple[bytes, int, dict[str, str]]:
        """Body, status and headers of a scrape."""
        return generate_latest(self.registry), 200, {"Content-Type": CONTENT_TYPE_LATEST}


@contextmanager
def measuring(state: State) -> Iterator[None]:
    """Measure what an app does; where its settings name a port, show it there too, to whoever asks.

    Raises SettingsError when the port is taken.
    """
    state.metrics = Metrics(state)
    port = state.services.settings.metrics_port
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, registry=state.metrics.registry)
    except OSError as error:
        raise SettingsError(f"UPRES_METRICS_PORT: {port} cannot be listened on ({error.strerror})") from None
    yield
    server.shutdown()
    server.server_close()
    thread.join()


class QueueCollector(Collector):
    """The queue, its workers, and how jobs ended: what Redis knows, and what the store failed this process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        errors = CounterMetricFamily("upres_store_errors", "Requests that the object store failed.", labels=["kind"])
        for kind, failed in self._services.store.failures.items():
            errors.add_metric([kind], failed)
        yield errors
        try:
            now = backlog.read(self._services.redis)
            ended: Any = self._services.redis.hgetall(keys.ENDED)
        except RedisError:  # what the process knows of itself is wanted then more than ever
            yield GaugeMetricFamily("upres_redis_up", "Whether Redis answers.", value=0)
            return
        yield GaugeMetricFamily("upres_redis_up", "Whether Redis answers.", value=1)
        yield from _memory(self._services.redis)
        yield from _queue(now)
        jobs = CounterMetricFamily("upres_jobs", "Jobs that ended.", labels=["model", "outcome", "code"])
        for field, count in ended.items():
            jobs.add_metric(field.decode().split("|"), int(count))
        yield jobs

    def describe(self) -> Iterable[Metric]:
        """Nothing: else registering would ask Redis."""
        return ()


def _memory(redis: Redis) -> Iterable[Metric]:
    """Of Redis, as far as its user may ask."""
    try:
        info: Any = redis.info("memory")
    except NoPermissionError:
        return
    used, most = info["used_memory"], info.get("maxmemory") or 0
    yield GaugeMetricFamily("upres_redis_memory_bytes", "What Redis has in use.", value=used)
    yield GaugeMetricFamily("upres_redis_memory_limit_bytes", "What it may have; 0: what there is.", value=most)


def _queue(now: backlog.Backlog) -> Iterable[Metric]:
    yield GaugeMetricFamily("upres_queue_jobs", "Jobs waiting in the queue.", value=now.waiting)
    oldest = "Since the oldest waiting job was accepted."
    yield GaugeMetricFamily("upres_queue_oldest_seconds", oldest, value=now.oldest_seconds)
    yield GaugeMetricFamily("upres_running_jobs", "Jobs that workers have in hand.", value=now.running)
    yield GaugeMetricFamily("upres_dead_letters", "Dead letters, see `upres jobs dead`.", value=now.dead)
    yield GaugeMetricFamily("upres_workers", "Workers that take jobs.", value=now.workers)
    yield GaugeMetricFamily("upres_worker_slots", "Jobs that they take at once.", value=now.slots)


class StreamCollector(Collector):
    """Event streams of this process."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        hub: Hub | None = getattr(self._state, "hub", None)
        if hub:
            yield GaugeMetricFamily("upres_sse_subscribers", "Open event streams.", value=hub.subscribers)
