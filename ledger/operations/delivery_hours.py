"""Deliveries of the last hours by what became of them, of the last days, and of each lab."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from msgspec import Struct
from psycopg import Connection

from ledger.eventlog.delivery_hours import DeliveryOutcome
from ledger.model.operators import Labs, as_array

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
WEEK = timedelta(days=7)

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

# The hour under way is left out: a part of one is no hour.
_LAB_HOURS = """
SELECT l.lab_id, heard.first, coalesce(came.lately, 0), coalesce(came.before, 0)
FROM unnest(%(labs)s::text[]) AS l (lab_id)
CROSS JOIN LATERAL (
    SELECT min(h.hour) AS first
    FROM state.lab_hour h
    WHERE h.lab_id = l.lab_id
) heard
CROSS JOIN LATERAL (
    SELECT
        sum(h.events) FILTER (WHERE h.hour >= %(day)s)::bigint AS lately,
        sum(h.events) FILTER (WHERE h.hour < %(day)s)::bigint AS before
    FROM state.lab_hour h
    WHERE h.lab_id = l.lab_id AND h.hour >= %(week)s AND h.hour < %(now)s
) came
WHERE heard.first IS NOT NULL
"""


class LabRate(Struct, frozen=True):
    """First deliveries by webhook an hour: of the last 24 whole hours, and of the 6 days before.

    Null where the lab had not been heard of. Hours before it first was do not count.
    """

    last_day: float | None
    before: float | None


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


def read_lab_rates(
    connection: Connection, now: datetime, *, labs: Sequence[str]
) -> dict[str, LabRate]:
    """Return how many deliveries an hour came of each of some labs, if any ever did."""
    this = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day, week = this - DAY, this - WEEK
    values = {"labs": list(labs), "now": this, "day": day, "week": week}
    return {
        lab_id: LabRate(
            last_day=_an_hour(lately, max(day, first), this),
            before=_an_hour(before, max(week, first), day),
        )
        for lab_id, first, lately, before in connection.execute(_LAB_HOURS, values)
    }


def _an_hour(deliveries: int, begin: datetime, end: datetime) -> float | None:
    return deliveries / ((end - begin) / HOUR) if begin < end else None
