"""What a projector counts, and the address at which Prometheus finds it.

Apart from `ledger.metrics`: a projector is a process of its own, with an address of its own.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)

from ledger.errors import SettingsError
from ledger.projection.projector import Batch, Observer
from ledger.setting_values import Address

# The text format tells when a counter began as a gauge with the counter's own description.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's stub

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ProjectorMetrics(Observer):
    """Counts what a projector does."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._leads = Gauge(
            "ledger_projector_leads",
            "Whether this projector leads (1) or waits for its turn (0).",
            registry=registry,
        )
        self._events = Counter(
            "ledger_folded_events", "Events of the log that were folded.", registry=registry
        )
        self._bills = Counter(
            "ledger_folded_bills", "Bills that were folded again for them.", registry=registry
        )
        self._seconds = Histogram(
            "ledger_fold_seconds",
            "How long the projector's transactions took.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "ledger_projector_failures", "Times that the projector began anew.", registry=registry
        )

    def serve(self, at: Address) -> None:
        """Answer `/metrics` in a thread. Raises `SettingsError` if the address cannot be had."""
        try:
            start_http_server(at.port, at.host, registry=self._registry)
        except OSError as error:
            raise SettingsError(
                f"LEDGER_LISTEN_PROJECTOR {at} cannot be listened at: {error.strerror or error}"
            ) from error

    def exposition(self) -> str:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def leads(self, *, now: bool) -> None:
        """Set the gauge."""
        self._leads.set(now)

    def folded(self, batch: Batch, seconds: float) -> None:
        """Count events and bills, and the time."""
        self._events.inc(batch.events)
        self._bills.inc(batch.bills)
        self._seconds.observe(seconds)

    def failed(self) -> None:
        """Count it."""
        self._failures.inc()
