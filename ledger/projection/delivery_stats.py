"""Counts how events arrived: when each lab was heard of, and how long its webhooks took.

Sums, so that any order and any split of the log gives the same.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from ledger.model.bill_history import LoggedEvent

FARTHEST = 3_600
"""Seconds. Whatever came later, or before it happened by more, is counted as one second beyond:
it says nothing of attempts that are minutes apart."""

DelayKey = tuple[str, date, int]
HourKey = tuple[str, date, int]
"""Lab, day and hour of the day, in UTC."""


class Arrival(Struct, frozen=True, gc=False):
    """How a readable event arrived that is not folded; as the members of a `LoggedEvent`."""

    received_at: datetime
    imported: bool
    delay: int


class DeliveryStats(Struct):
    """By lab, the first and the last reception; by lab, day and seconds, how many deliveries.

    By lab and hour, how many webhooks, and when the last of them was received.
    """

    labs: dict[str, tuple[datetime, datetime]]
    delays: Counter[DelayKey]
    hours: dict[HourKey, tuple[int, datetime]]

    @classmethod
    def none(cls) -> "DeliveryStats":
        """Return those of an empty log."""
        return cls({}, Counter(), {})

    def add(self, lab_id: str, arrived: Sequence[Arrival | LoggedEvent]) -> None:
        """Count readable events of a lab."""
        if not arrived:
            return
        first, last = self.labs.get(lab_id, (arrived[0].received_at, arrived[0].received_at))
        for one in arrived:
            at = one.received_at
            if at < first:
                first = at
            elif at > last:
                last = at
            if not one.imported:
                seconds = one.delay
                if not -FARTHEST <= seconds <= FARTHEST:
                    seconds = FARTHEST + 1 if seconds > 0 else -FARTHEST - 1
                day = at.date()
                self.delays[lab_id, day, seconds] += 1
                key = (lab_id, day, at.hour)
                count, latest = self.hours.get(key, (0, at))
                self.hours[key] = (count + 1, max(latest, at))
        self.labs[lab_id] = (first, last)

    def merge(self, other: "DeliveryStats") -> None:
        """Add what was counted elsewhere, of other events."""
        for lab, (first, last) in other.labs.items():
            old_first, old_last = self.labs.get(lab, (first, last))
            self.labs[lab] = (min(first, old_first), max(last, old_last))
        self.delays.update(other.delays)
        for key, (count, latest) in other.hours.items():
            old_count, old_latest = self.hours.get(key, (0, latest))
            self.hours[key] = (count + old_count, max(latest, old_latest))

    def to_bytes(self) -> bytes:
        """Return what `from_bytes` reads."""
        return msgspec.msgpack.encode((self.labs, self.delays, self.hours))

    @classmethod
    def from_bytes(cls, text: bytes) -> "DeliveryStats":
        """Return what `to_bytes` wrote."""
        labs, delays, hours = _STORED.decode(text)
        return cls(labs, Counter(delays), hours)


_STORED = msgspec.msgpack.Decoder(
    tuple[
        dict[str, tuple[datetime, datetime]],
        dict[DelayKey, int],
        dict[HourKey, tuple[int, datetime]],
    ]
)


def write(connection: Connection, schema: str, delivery_stats: DeliveryStats) -> None:
    """Add to what is stored."""
    labs = sorted(
        delivery_stats.labs.items()
    )  # in one order: two writers must not wait for each other
    if labs:
        connection.execute(
            SQL("""
                INSERT INTO {}.lab AS l (lab_id, first_received_at, last_received_at)
                SELECT * FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[])
                ON CONFLICT (lab_id) DO UPDATE SET
                    first_received_at = least(l.first_received_at, excluded.first_received_at),
                    last_received_at = greatest(l.last_received_at, excluded.last_received_at)
            """).format(Identifier(schema)),
            (
                [lab for lab, _ in labs],
                [first for _, (first, _) in labs],
                [x for _, (_, x) in labs],
            ),
        )
    _write_hours(connection, schema, delivery_stats)
    delays = sorted(delivery_stats.delays.items())
    if delays:
        connection.execute(
            SQL("""
                INSERT INTO {}.delay AS d (lab_id, day, seconds, deliveries)
                SELECT * FROM unnest(%s::text[], %s::date[], %s::int[], %s::bigint[])
                ON CONFLICT (lab_id, day, seconds) DO UPDATE SET
                    deliveries = d.deliveries + excluded.deliveries
            """).format(Identifier(schema)),
            (
                [lab for (lab, _, _), _ in delays],
                [day for (_, day, _), _ in delays],
                [seconds for (_, _, seconds), _ in delays],
                [count for _, count in delays],
            ),
        )


def _write_hours(connection: Connection, schema: str, delivery_stats: DeliveryStats) -> None:
    hours = sorted(delivery_stats.hours.items())
    if not hours:
        return
    connection.execute(
        SQL("""
            INSERT INTO {}.lab_hour AS h (lab_id, hour, events, last_received_at)
            SELECT * FROM unnest(%s::text[], %s::timestamptz[], %s::bigint[], %s::timestamptz[])
            ON CONFLICT (lab_id, hour) DO UPDATE SET
                events = h.events + excluded.events,
                last_received_at = greatest(h.last_received_at, excluded.last_received_at)
        """).format(Identifier(schema)),
        (
            [lab for (lab, _, _), _ in hours],
            [datetime.combine(day, time(hour), UTC) for (_, day, hour), _ in hours],
            [events for _, (events, _) in hours],
            [latest for _, (_, latest) in hours],
        ),
    )


def stored(connection: Connection, schema: str) -> DeliveryStats:
    """Return what is stored."""
    labs = SQL("SELECT lab_id, first_received_at, last_received_at FROM {}.lab")
    delays = SQL("SELECT lab_id, day, seconds, deliveries FROM {}.delay")
    hours = SQL("SELECT lab_id, hour, events, last_received_at FROM {}.lab_hour")
    return DeliveryStats(
        {lab: (first, last) for lab, first, last in _rows(connection, labs, schema)},
        Counter({(lab, day, s): count for lab, day, s, count in _rows(connection, delays, schema)}),
        {
            # A fraction of an hour equals none, so that a changed row is no other row's.
            (lab, hour.date(), hour.hour + hour.minute / 60 + hour.second / 3600): (count, latest)
            for lab, hour, count, latest in _rows(connection, hours, schema)
        },
    )


def _rows(connection: Connection, query: SQL, schema: str) -> Iterator[tuple[Any, ...]]:
    yield from connection.execute(query.format(Identifier(schema)))
