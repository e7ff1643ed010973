"""Labs in a list: when each was heard of, what is subscribed, and what of it is overdue."""

from datetime import UTC, datetime

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.model.operators import Labs, as_array
from ledger.operations.missing_events.queries import STATE, SUBSCRIBED, parameters
from ledger.operations.policy import Policy

_LIST = SQL("""
SELECT
    l.lab_id,
    l.first_received_at,
    l.last_received_at,
    coalesce(
        (
            SELECT s.events
            FROM state.subscription s
            WHERE s.lab_id = l.lab_id
            ORDER BY s.position DESC
            LIMIT 1
        ),
        %(events)s
    ),
    (
        SELECT count(*)
        FROM state.missing_event m
        WHERE m.lab_id = l.lab_id AND m.waived_at IS NULL AND {state} = 'overdue' AND {subscribed}
    )
FROM state.lab l
WHERE
    (%(labs)s::text[] IS NULL OR l.lab_id = ANY(%(labs)s::text[]))
    AND (%(after)s::text IS NULL OR l.lab_id > %(after)s)
ORDER BY l.lab_id
LIMIT %(limit)s
""").format(state=SQL(STATE), subscribed=SQL(SUBSCRIBED))


class ListedLab(Struct, frozen=True):
    """A lab. Times are UTC."""

    lab_id: str
    first_received_at: datetime
    last_received_at: datetime
    events: list[str]
    overdue: int


def list_labs(
    connection: Connection,
    policy: Policy,
    now: datetime,
    *,
    labs: Labs,
    after: str | None,
    limit: int,
) -> list[ListedLab]:
    """Return labs that an event was received from, by id, those after `after`."""
    values = {
        **parameters(policy, now), "labs": as_array(labs), "after": after, "limit": limit,
    }  # fmt: skip
    return [
        ListedLab(lab_id, first.astimezone(UTC), last.astimezone(UTC), events, overdue)
        for lab_id, first, last, events, overdue in connection.execute(_LIST, values)
    ]
