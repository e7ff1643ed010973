"""What needs a person now: what is overdue, lost, unseen, parked, unreadable or refused.

Counts end at `MOST`, so that they cost the same however much there is.
"""

from datetime import datetime, timedelta
from typing import Any, LiteralString

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.model.operators import Labs, as_array
from ledger.operations.loss_windows import position_at, read_windows
from ledger.operations.missing_events.queries import (
    LAST_POSITION,
    Filter,
    conditions,
    in_order,
    parameters,
)
from ledger.operations.policy import Policy

MOST = 10_000

DAY = timedelta(days=1)

_OVERDUE = SQL("""
SELECT count(*), min(m.evidence_received_at)
FROM (
    SELECT m.evidence_received_at
    FROM state.missing_event m
    WHERE {where}
    ORDER BY m.evidence_received_at
    LIMIT %(most)s
) m
""")

_UNSEEN = """
SELECT count(*), min(e.expected_by)
FROM (
    SELECT e.expected_by
    FROM state.expected_bill e
    WHERE
        NOT e.is_seen AND e.expected_by <= %(now)s
        AND (%(labs)s::text[] IS NULL OR e.lab_id = ANY(%(labs)s::text[]))
    ORDER BY e.expected_by
    LIMIT %(most)s
) e
"""

_UNREADABLE = """
SELECT count(*), min(u.position)
FROM (
    SELECT u.position
    FROM state.unreadable_event u
    WHERE
        u.position > %(since)s
        AND (%(labs)s::text[] IS NULL OR u.lab_id = ANY(%(labs)s::text[]))
    ORDER BY u.position
    LIMIT %(most)s
) u
"""

_PARKED = """
SELECT count(*), NULL
FROM state.parked_bill p
WHERE %(labs)s::text[] IS NULL OR p.lab_id = ANY(%(labs)s::text[])
"""

_REFUSED = """
SELECT count(*), min(r.received_at)
FROM (
    SELECT r.received_at
    FROM ledger.refused_delivery r
    WHERE %(labs)s::text[] IS NULL OR r.lab_id = ANY(%(labs)s::text[])
    LIMIT %(most)s
) r
"""


class Needs(Struct, frozen=True):
    """How many there are of each, with the oldest: `MOST` + 1 stands for more than `MOST`.

    `unreadable` are those of the last day, with the first position of them.
    """

    overdue: int
    overdue_since: datetime | None
    possible: int
    possible_since: datetime | None
    windows: int
    windows_since: datetime | None
    unseen: int
    unseen_since: datetime | None
    unreadable: int
    unreadable_from: int | None
    parked: int
    refused: int
    refused_since: datetime | None


def read_needs(connection: Connection, policy: Policy, now: datetime, *, labs: Labs) -> Needs:
    """Count what needs a person, of these labs."""
    values: dict[str, Any] = {"labs": as_array(labs), "now": now, "most": MOST + 1}
    windows = [
        window
        for window in read_windows(connection, policy, now, position=LAST_POSITION, labs=labs)
        if window.state == "open"
    ]
    since = position_at(connection, now - DAY)
    overdue, oldest = count_overdue(connection, policy, now, Filter(labs=labs, certainty="certain"))
    possible, likely = count_overdue(
        connection, policy, now, Filter(labs=labs, certainty="possible")
    )
    unseen = _one(connection, _UNSEEN, values)
    unreadable = _one(connection, _UNREADABLE, {**values, "since": since})
    refused = _one(connection, _REFUSED, values)
    return Needs(
        overdue=overdue,
        overdue_since=oldest,
        possible=possible,
        possible_since=likely,
        windows=len(windows),
        windows_since=windows[0].begin if windows else None,
        unseen=unseen[0],
        unseen_since=unseen[1],
        unreadable=unreadable[0],
        unreadable_from=unreadable[1],
        parked=_one(connection, _PARKED, values)[0],
        refused=refused[0],
        refused_since=refused[1],
    )


def count_overdue(
    connection: Connection, policy: Policy, now: datetime, wanted: Filter
) -> tuple[int, datetime | None]:
    """Count overdue missing events that match a filter; return since when the oldest is overdue."""
    wanted = Filter(
        state="overdue",
        labs=wanted.labs,
        lab_id=wanted.lab_id,
        event_type=wanted.event_type,
        certainty=wanted.certainty,
    )
    where, values = conditions(wanted)
    query = _OVERDUE.format(where=SQL(" AND ").join(where))
    values = {**parameters(policy, now), **values, "most": MOST + 1}
    with in_order(connection):
        row = connection.execute(query, values).fetchone()
    assert row  # noqa: S101 -- a count is one row
    return row[0], row[1] and row[1] + policy.budget


def _one(connection: Connection, query: LiteralString, values: dict[str, Any]) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    assert row  # noqa: S101 -- a count is one row
    return row
