"""Prometheus text. Imported only when somebody scrapes: the library costs more than the rest of a request."""

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core import workers
from function.services import Services


class QueueCollector(Collector):
    """Reads the queue at the moment of the scrape."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Queue depth and live workers."""
        listed = workers.listing(self._services.redis)
        slots = sum(worker.slots for worker in listed if worker.state == "ready")
        yield GaugeMetricFamily("upres_queue_jobs", "Jobs waiting in the queue.", value=self._services.queue.count)
        yield GaugeMetricFamily("upres_worker_slots", "Slots of workers that take jobs.", value=slots)


def render(services: Services) -> tuple[bytes, int, dict[str, str]]:
    """Body, status and headers of a scrape."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(services))
    return generate_latest(registry), 200, {"Content-Type": CONTENT_TYPE_LATEST}
