"""Prometheus metrics about the state of a worker, which are read when Prometheus scrapes them."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from upres.worker.context import WorkerContext
from upres.worker.in_flight import InFlightJobs

BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the histogram of batch sizes, in tiles."""


class WorkerCollector(Collector):
    """Metrics of the device, tiles, slots, store and models of one worker."""

    def __init__(self, context: WorkerContext, in_flight: InFlightJobs) -> None:
        self._device, self._stats, self._models = context.device, context.thread.stats, context.models
        self._memory = context.memory
        self._store, self._slots, self._in_flight = context.store, context.settings.slots, in_flight

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics with their current values (see prometheus_client)."""
        yield from self._device_metrics()
        yield GaugeMetricFamily("upres_slots", "Number of jobs that the worker runs at once.", value=self._slots)
        yield GaugeMetricFamily("upres_slots_busy", "Jobs that run now.", value=len(self._in_flight.current()))
        errors = CounterMetricFamily("upres_store_errors", "Requests that the object store failed.", labels=["kind"])
        for kind, count in self._store.failures.items():
            errors.add_metric([kind], count)
        yield errors
        served = GaugeMetricFamily(
            "upres_model_info", "Models that are loaded and ready.", labels=["model", "version", "digest"]
        )
        ready = ((model.manifest.name, model.manifest.version, model.digest[:12]) for model in self._models.ready())
        for labels in dict.fromkeys(ready):  # a version with several strengths is one
            served.add_metric(labels, 1)
        yield served

    def _device_metrics(self) -> Iterable[Metric]:
        yield InfoMetricFamily("upres_device", "The device.", {"kind": self._device.kind, "name": self._device.name})
        bytes_ = GaugeMetricFamily("upres_device_memory_bytes", "Memory of the device.", labels=["state"])
        bytes_.add_metric(["used"], self._memory.used)
        bytes_.add_metric(["free"], self._memory.total - self._memory.used)
        yield bytes_
        if self._memory.utilization is not None:
            yield GaugeMetricFamily(
                "upres_device_utilization_ratio",
                "Share of the time in which the GPU computed, by any process.",
                value=self._memory.utilization,
            )
        busy = "Time in which the device had work; its rate is the busy share."
        yield CounterMetricFamily("upres_device_busy_seconds", busy, value=self._stats.busy_seconds)
        yield CounterMetricFamily("upres_tiles", "Tiles enlarged.", value=self._stats.tiles)
        yield self._batches()

    def _batches(self) -> HistogramMetricFamily:
        sizes = dict(self._stats.sizes)
        buckets = [(str(most), sum(n for size, n in sizes.items() if size <= most)) for most in BATCHES]
        buckets.append(("+Inf", sum(sizes.values())))
        total = sum(size * n for size, n in sizes.items())
        return HistogramMetricFamily("upres_batch_tiles", "Tiles in each batch.", buckets=buckets, sum_value=total)
