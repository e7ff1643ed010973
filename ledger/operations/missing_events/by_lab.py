"""Missing events grouped by lab. Only the oldest `MOST` are counted, whatever there is."""

from datetime import UTC, datetime

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.operations.missing_events.queries import Filter, conditions, in_order, parameters
from ledger.operations.policy import Policy

MOST = 10_000

_BY_LAB = SQL("""
SELECT
    m.lab_id,
    count(*) FILTER (WHERE m.certainty = 'certain'),
    count(*) FILTER (WHERE m.certainty = 'possible'),
    min(m.evidence_received_at),
    sum(count(*)) OVER ()
FROM (
    SELECT m.lab_id, m.certainty, m.evidence_received_at
    FROM state.missing_event m
    WHERE {where}
    ORDER BY m.evidence_received_at
    LIMIT %(most)s
) m
GROUP BY m.lab_id
ORDER BY count(*) DESC, m.lab_id
LIMIT %(limit)s
""")


class LabMissing(Struct, frozen=True):
    """How many missing events a lab has, and when the proof of the oldest was received (UTC)."""

    lab_id: str
    certain: int
    possible: int
    oldest: datetime


def missing_by_lab(
    connection: Connection, policy: Policy, now: datetime, wanted: Filter, *, limit: int
) -> tuple[list[LabMissing], bool]:
    """Return the labs with the most missing events that match a filter, and if all were counted."""
    where, values = conditions(wanted)
    with in_order(connection):
        rows = connection.execute(
            _BY_LAB.format(where=SQL(" AND ").join(where)),
            {**parameters(policy, now), **values, "most": MOST, "limit": limit},
        ).fetchall()
    labs = [LabMissing(row[0], row[1], row[2], row[3].astimezone(UTC)) for row in rows]
    return labs, not rows or rows[0][4] < MOST
