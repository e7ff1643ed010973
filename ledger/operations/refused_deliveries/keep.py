"""Keeps refused deliveries in the box, within its bounds."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from psycopg import Connection

from ledger.eventlog.append import Delivery, from_unix

Refusal = Literal["wrong", "missing", "foreign_lab"]
"""Why a delivery was refused: its token was wrong or missing, or is not for the event's lab."""

_KEEP = """
SELECT kept, repeated, without_room, known_labs
FROM ledger.keep_refused_deliveries(
    %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::text[], %s::text[], %s::text[],
    %s::text[], %s::text[], %s::timestamptz[], %s::bytea[], %s::bytea[],
    %s, %s, %s
)
"""


class Bounds(Struct, frozen=True):
    """How much the box holds."""

    rows: int
    bytes: int
    age: timedelta


class Refused(Struct):
    """A delivery that was refused, how often, and when last. Its address is that of the first."""

    delivery: Delivery
    reason: Refusal
    client: str
    times: int
    last_received_at: datetime


class Kept(Struct, frozen=True):
    """How many deliveries are new in the box, were there already, and found no room.

    `known_labs` are up to ten labs of those there that the log knows.
    """

    new: int
    repeated: int
    without_room: int
    known_labs: list[str]


def keep(connection: Connection, refused: Sequence[Refused], bounds: Bounds, now: datetime) -> Kept:
    """Keep deliveries of different digests, in one transaction."""
    columns = [one.delivery.columns for one in refused]
    row = connection.execute(
        _KEEP,
        (
            [one.delivery.received_at for one in refused],
            [one.last_received_at for one in refused],
            [one.times for one in refused],
            [one.reason for one in refused],
            [one.client for one in refused],
            [each.lab_id for each in columns],
            [each.bill_id for each in columns],
            [each.event_type for each in columns],
            [None if (at := each.event_time) is None else from_unix(at) for each in columns],
            [each.digest for each in columns],
            [one.delivery.body for one in refused],
            now - bounds.age,
            bounds.rows,
            bounds.bytes,
        ),
        binary=True,
    ).fetchone()
    assert row  # noqa: S101 -- the function returns one row
    return Kept(*row)
