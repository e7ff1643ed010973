"""Events of the log by type, lab and source, from a position on or back from one.

The log has no index on types and sources, and none may be scanned whole: a search looks at so many
events at most, says how far it looked, and goes on from there when it is asked.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct
from psycopg.sql import SQL, Composed

from ledger.eventlog.append import Source
from ledger.model.operators import Labs, as_array

LOOKED_AT = 10_000
"""Events that one search looks at."""


class LogSearch(Struct, frozen=True, kw_only=True):
    """Which events: from `start` on, or back from `start`; None stands for all."""

    start: int
    backwards: bool
    limit: int
    labs: Labs = None
    event_type: str | None = None
    source: Source | None = None

    @property
    def looks_at(self) -> int:
        """How many events are looked at: no more than are wanted where all are."""
        return self.limit if self.event_type is None and self.source is None else LOOKED_AT


class FoundEvent(Struct, frozen=True):
    """An event without its body."""

    position: int
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    lab_id: str
    bill_id: str


class FoundEvents(Struct, frozen=True):
    """What a search found, in the order in which it looked, and where it stopped looking.

    `stopped_at` is the last position that it looked at, if there may be more beyond it.
    """

    head: int
    events: list[FoundEvent]
    stopped_at: int | None


_COLUMNS = SQL(
    "e.position, e.event_type, e.event_time, e.received_at, e.source, e.lab_id, e.bill_id"
)

_OF_ALL = SQL("""
    SELECT {columns}
    FROM ledger.event_log e
    WHERE e.position {beyond} %(start)s
    ORDER BY e.position {direction}
    LIMIT %(looks_at)s
""")

# From lab to lab along the index, so that the cost does not depend on the events of other labs.
_OF_LABS = SQL("""
    SELECT e.*
    FROM unnest(%(labs)s::text[]) AS k (lab_id)
    CROSS JOIN LATERAL (
        SELECT {columns}
        FROM ledger.event_log e
        WHERE e.lab_id = k.lab_id AND e.position {beyond} %(start)s
        ORDER BY e.lab_id {direction}, e.position {direction}
        LIMIT %(looks_at)s
    ) e
    ORDER BY e.position {direction}
    LIMIT %(looks_at)s
""")

# Where the log is distributed, no lateral join can be sent to the nodes.
_OF_LABS_ON_CLUSTER = SQL("""
    SELECT {columns}
    FROM ledger.event_log e
    WHERE e.lab_id = ANY(%(labs)s::text[]) AND e.position {beyond} %(start)s
    ORDER BY e.position {direction}
    LIMIT %(looks_at)s
""")

_SEARCH = SQL("""
WITH looked AS MATERIALIZED ({rows})
SELECT
    {head},
    (SELECT count(*) FROM looked),
    (SELECT e.position FROM looked e ORDER BY e.position {backwards} LIMIT 1),
    e.*
FROM (VALUES (1)) one
LEFT JOIN LATERAL (
    SELECT *
    FROM looked e
    WHERE
        (%(event_type)s::text IS NULL OR e.event_type = %(event_type)s)
        AND (%(source)s::text IS NULL OR e.source = %(source)s)
    ORDER BY e.position {direction}
    LIMIT %(limit)s
) e ON true
ORDER BY e.position {direction}
""")


def search_query(search: LogSearch, *, on_cluster: bool = False) -> tuple[Composed, dict[str, Any]]:
    """Return the query of a search, whose rows `found` reads."""
    of_labs = _OF_LABS_ON_CLUSTER if on_cluster else _OF_LABS
    # A function that reads the log would be sent to a node.
    head = "(SELECT h.position FROM ledger.log_head h)" if on_cluster else "ledger.last_position()"
    direction, backwards = (
        (SQL("DESC"), SQL("ASC")) if search.backwards else (SQL("ASC"), SQL("DESC"))
    )
    rows = (_OF_ALL if search.labs is None else of_labs).format(
        columns=_COLUMNS, beyond=SQL("<=" if search.backwards else ">="), direction=direction
    )
    query = _SEARCH.format(rows=rows, head=SQL(head), direction=direction, backwards=backwards)
    return query, {
        "start": search.start,
        "looks_at": search.looks_at,
        "limit": search.limit,
        "labs": as_array(search.labs),
        "event_type": search.event_type,
        "source": search.source,
    }


def found(search: LogSearch, rows: list[tuple[Any, ...]]) -> FoundEvents:
    """Return what the rows of a search say."""
    head, looked, last = rows[0][:3]
    events = [FoundEvent(*row[3:]) for row in rows if row[3] is not None]
    return FoundEvents(
        head=head,
        events=events,
        stopped_at=last if looked == search.looks_at and len(events) < search.limit else None,
    )
