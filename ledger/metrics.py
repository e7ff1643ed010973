"""Prometheus metrics: counters of the intake, and the exposition of all metrics.

Counters are incremented once per batch. Several worker processes count into files of one folder;
the counts of a worker that died stay part of the sum. Gauges are computed for each scrape and never
written to that folder, so none of a dead worker remains.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ledger.settings import metrics_are_shared

DELIVERIES = Counter("ledger_deliveries", "Webhook deliveries stored, by outcome.", ["outcome"])
REFUSED = Counter(
    "ledger_deliveries_refused", "Webhook deliveries not stored, by HTTP status.", ["status"]
)
BOXED = Counter(
    "ledger_refused_box",
    "Deliveries with a wrong token that look like Flabs', by what the box did with them.",
    ["outcome"],
)
LANE_FAILURES = Counter("ledger_lane_failures", "Deliveries that the database did not store.")
BATCHES = Histogram(
    "ledger_lane_batch_size",
    "Deliveries in one transaction of the lane.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)

# Each series exists from the start: the rate of a counter that appears with 1 is not seen.
for _outcome in ("recorded", "duplicate", "unreadable", "spooled"):
    DELIVERIES.labels(_outcome)
for _outcome in ("new", "repeated", "without_room"):
    BOXED.labels(_outcome)
for _status in ("400", "401", "405", "413", "503"):
    REFUSED.labels(_status)

_COUNTED = (DELIVERIES, REFUSED, BOXED, LANE_FAILURES, BATCHES)


def exposition(measured: Iterable[Metric]) -> bytes:
    """Return all metrics in Prometheus' text format: what was counted, and what was measured."""
    registry = CollectorRegistry()
    registry.register(_Counted())
    registry.register(_Measured(measured))
    return generate_latest(registry)


class _Counted(Collector):
    """The counters of all worker processes."""

    def collect(self) -> Iterable[Metric]:
        if not metrics_are_shared():
            for counter in _COUNTED:
                yield from counter.collect()
            return
        described = {
            metric.name: metric.documentation
            for counter in _COUNTED
            for metric in counter.collect()
        }
        for metric in MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]  # the library's stub
            metric.documentation = described.get(metric.name, metric.documentation)
            yield metric


class _Measured(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
