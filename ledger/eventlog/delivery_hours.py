"""Counts deliveries by hour and outcome, for people who look at the last day.

A process reads its own counters from time to time and adds what they grew by to the database, so
that a delivery costs nothing more. What was counted in the seconds before a kill is lost; what was
being added when the connection broke may be counted twice.
"""

from collections import Counter
from datetime import datetime
from typing import Literal, get_args

from prometheus_client import Counter as Metric
from psycopg import Connection

from ledger.metrics import DELIVERIES, REFUSED

DeliveryOutcome = Literal["recorded", "duplicate", "unreadable", "spooled", "refused", "not_stored"]
OUTCOMES: tuple[DeliveryOutcome, ...] = get_args(DeliveryOutcome)

LOCK_TIMEOUT = 500
"""Milliseconds. Liveness is recorded on the same connection and must not wait for a count."""

_ADD = """
INSERT INTO ledger.delivery_hour AS d (hour, outcome, deliveries)
VALUES (%s, %s, %s)
ON CONFLICT (hour, outcome) DO UPDATE SET deliveries = d.deliveries + excluded.deliveries
"""


class DeliveryHours:
    """What one process counted and the database does not hold yet. For one thread."""

    def __init__(self) -> None:
        self._seen = _counted()
        self._pending: Counter[tuple[datetime, DeliveryOutcome]] = Counter()

    def note(self, now: datetime) -> None:
        """Take what was counted since the last call, as of the hour `now`."""
        counted = _counted()
        hour = now.replace(minute=0, second=0, microsecond=0)
        for outcome, number in counted.items():
            if number > self._seen[outcome]:
                self._pending[hour, outcome] += number - self._seen[outcome]
        self._seen = counted

    def record(self, connection: Connection) -> None:
        """Add to the database what was taken. Raises `psycopg.Error`: then it is kept."""
        if not self._pending:
            return
        # In one order: processes that count at the same time must not wait for each other.
        rows = [(*key, number) for key, number in sorted(self._pending.items())]
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
            cursor.executemany(_ADD, rows)
        self._pending.clear()


def _counted() -> Counter[DeliveryOutcome]:
    """Return this process's counters."""
    counts: Counter[DeliveryOutcome] = Counter()
    for labels, number in _samples(DELIVERIES):
        for outcome in OUTCOMES:
            if labels["outcome"] == outcome:
                counts[outcome] += number
    for labels, number in _samples(REFUSED):
        counts["not_stored" if labels["status"] == "503" else "refused"] += number
    return counts


def _samples(metric: Metric) -> list[tuple[dict[str, str], int]]:
    return [
        (sample.labels, int(sample.value))
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    ]
