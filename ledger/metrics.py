"""Prometheus metrics: what the processes of a server count, and the exposition of all metrics.

Counters are incremented once per batch. Several worker processes count into files of one folder;
the counts of a worker that died stay part of the sum. Gauges are computed for each scrape and never
written to that folder, so none of a dead worker remains; but for those of `LOAD`, which each worker
writes for itself, and which are removed by the next scrape after its end.
"""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from ledger.settings import metrics_are_shared, metrics_folder

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

COMMIT_SECONDS = Histogram(
    "ledger_commit_seconds",
    "How long the lane's transactions took, from their beginning to their commit.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)
DELIVERY_SECONDS = Histogram(
    "ledger_delivery_seconds",
    "From reception to answer, of the delivery of each transaction that waited longest.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10),
)
HTTP_REQUESTS = Counter(
    "ledger_http_requests",
    "Requests answered, but for deliveries and probes, by route, method and status.",
    ["route", "method", "status"],
)
HTTP_SECONDS = Histogram(
    "ledger_http_request_seconds",
    "How long the first byte of such an answer took, by route.",
    ["route"],
    buckets=(0.005, 0.025, 0.1, 0.5, 2.5, 10),
)
WAITING = Gauge(
    "ledger_lane_waiting", "Deliveries that wait for their commit.", multiprocess_mode="livesum"
)
STREAMS = Gauge(
    "ledger_change_streams", "Open streams of changed bills.", multiprocess_mode="livesum"
)
POOL = Gauge(
    "ledger_pool_connections",
    "Connections for the API's queries, by whether they are in use.",
    ["state"],
    multiprocess_mode="livesum",
)
POOL_WAITING = Gauge(
    "ledger_pool_waiting", "Queries that wait for a connection.", multiprocess_mode="livesum"
)
MEMORY = Gauge(
    "ledger_resident_memory_bytes", "Memory of all workers.", multiprocess_mode="livesum"
)
CPU = Counter("ledger_cpu_seconds", "Processor time of all workers.")

# Each series exists from the start: the rate of a counter that appears with 1 is not seen.
for _outcome in ("recorded", "duplicate", "unreadable", "spooled"):
    DELIVERIES.labels(_outcome)
for _outcome in ("new", "repeated", "without_room"):
    BOXED.labels(_outcome)
for _status in ("400", "401", "405", "413", "503"):
    REFUSED.labels(_status)
for _state in ("idle", "used"):
    POOL.labels(_state)

LOAD = (WAITING, STREAMS, POOL, POOL_WAITING, MEMORY)
"""What each worker measures of itself every second."""

_COUNTED = (
    DELIVERIES,
    REFUSED,
    BOXED,
    LANE_FAILURES,
    BATCHES,
    COMMIT_SECONDS,
    DELIVERY_SECONDS,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    CPU,
    *LOAD,
)


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
        _forget_dead_workers()
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


def _forget_dead_workers() -> None:
    """Remove what workers that ended had measured of themselves; what they counted stays."""
    for file in metrics_folder().glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library's stub
