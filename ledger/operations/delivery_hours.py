"""What became of the deliveries of the last hours."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from psycopg import Connection

from ledger.eventlog.delivery_hours import DeliveryOutcome

HOUR = timedelta(hours=1)

_HOURS = """
SELECT d.hour, d.outcome, d.deliveries
FROM ledger.delivery_hour d
WHERE d.hour > %s
"""


class DeliveryHour(Struct, frozen=True):
    """An hour, by its beginning (UTC), and how many deliveries had each outcome."""

    hour: datetime
    deliveries: dict[DeliveryOutcome, int]

    @property
    def total(self) -> int:
        """How many deliveries there were in all."""
        return sum(self.deliveries.values())


def read_delivery_hours(connection: Connection, now: datetime, *, hours: int) -> list[DeliveryHour]:
    """Return so many hours, the one of `now` last; an hour without deliveries is one, too."""
    last = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    found: dict[datetime, dict[Any, int]] = {
        last - HOUR * back: {} for back in reversed(range(hours))
    }
    for hour, outcome, deliveries in connection.execute(_HOURS, (last - HOUR * hours,)):
        found.setdefault(hour.astimezone(UTC), {})[outcome] = deliveries
    return [DeliveryHour(hour, counts) for hour, counts in sorted(found.items()) if hour <= last]
