"""Prometheus text. Imported only when somebody scrapes: the library costs more than the rest of a request."""

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rq.worker_registration import get_keys

from function.services import Services


class QueueCollector(Collector):
    """Reads the queue at the moment of the scrape."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Queue depth and live workers."""
        queue = self._services.queue
        yield GaugeMetricFamily("upres_queue_jobs", "Jobs waiting in the queue.", value=queue.count)
        yield GaugeMetricFamily("upres_worker_slots", "Slots of workers on the queue.", value=len(get_keys(queue)))


def render(services: Services) -> tuple[bytes, int, dict[str, str]]:
    """Body, status and headers of a scrape."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(services))
    return generate_latest(registry), 200, {"Content-Type": CONTENT_TYPE_LATEST}
