"""Deliveries of the last hours by what became of them, and of the last days."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from msgspec import Struct
from psycopg import Connection

from ledger.eventlog.delivery_hours import DeliveryOutcome
from ledger.model.operators import Labs, as_array

HOUR = timedelta(hours=1)

_HOURS = """
SELECT d.hour, d.outcome, d.deliveries
FROM ledger.delivery_hour d
WHERE d.hour > %s
"""

_DAYS = """
SELECT d.day, sum(d.deliveries)::bigint
FROM state.delay d
WHERE
    d.day >= %(first_day)s
    AND (%(labs)s::text[] IS NULL OR d.lab_id = ANY(%(labs)s::text[]))
GROUP BY d.day
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


def read_delivery_days(
    connection: Connection, today: date, *, days: int, labs: Labs
) -> list[tuple[date, int]]:
    """Return so many days (UTC) up to today with the first deliveries by webhook of each."""
    every = [today - timedelta(days=back) for back in reversed(range(days))]
    values = {"first_day": every[0], "labs": as_array(labs)}
    counts: dict[date, int] = dict(connection.execute(_DAYS, values).fetchall())
    return [(day, counts.get(day, 0)) for day in every]
