"""Reads the event log: its head, what comes after a position, and all events of some bills."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Composable, Composed

from ledger.eventlog.append import Source
from ledger.model.operators import Labs
from ledger.postgres.cluster import choose

Key = tuple[str, str]
"""`(lab_id, bill_id)`."""


class LogRow(NamedTuple):
    """One event as the log holds it, with the columns that the fold needs.

    If the body was erased, it is empty, and the type and the time stand here, which are null
    otherwise: a body that is there says them itself.
    """

    position: int
    received_at: datetime
    digest: bytes
    lab_id: str
    bill_id: str
    body: bytes
    source: Source
    erased_type: str | None = None
    erased_time: datetime | None = None


COLUMNS = """
    position, received_at, digest, lab_id, bill_id, coalesce(body, '') AS body, source,
    CASE WHEN body IS NULL THEN event_type END AS erased_type,
    CASE WHEN body IS NULL THEN event_time END AS erased_time
"""
"""What is selected from `ledger.logged_event` for a `LogRow`."""

BATCH_BYTES = 32 * 1024 * 1024
"""Of bodies that `after` returns at the most; the last may go beyond. Bodies can be large."""

_TYPES = (
    "int8",
    "timestamptz",
    "bytea",
    "text",
    "text",
    "bytea",
    "text",
    "text",
    "timestamptz",
)
"""Of `COLUMNS`."""

HEAD = "SELECT ledger.event_log_head()"

# Sizes are known without the bodies' being read from the disk.
_AFTER = SQL(f"""
SELECT {", ".join(LogRow._fields)}
FROM (
    SELECT
        l.*, sum(octet_length(l.body)) OVER (ORDER BY l.position) - octet_length(l.body) AS before
    FROM (
        SELECT {COLUMNS}
        FROM ledger.logged_event
        WHERE position > {{after}} AND position <= {{upto}}{{of_labs}}
        ORDER BY position
        LIMIT {{limit}}
    ) l
) sized
WHERE before < {{batch_bytes}}
ORDER BY position
""")  # noqa: S608 -- our own names

# A look-up along the key for each bill, whatever the planner thinks of the log: OFFSET 0 keeps the
# look-up apart, + 0 keeps it off the index on position, ORDER BY on the key.
_OF_BILLS = SQL(f"""
SELECT e.*
FROM unnest({{labs}}::text[], {{bills}}::text[]) AS k (lab_id, bill_id)
CROSS JOIN LATERAL (
    SELECT {COLUMNS}
    FROM ledger.logged_event l
    WHERE l.lab_id = k.lab_id AND l.bill_id = k.bill_id AND l.position + 0 <= {{upto}}
    ORDER BY l.lab_id, l.bill_id
    OFFSET 0
) e
""")  # noqa: S608 -- our own names

# Nothing that is joined laterally, or cut off by OFFSET, can be sent to the nodes.
_OF_BILLS_ON_CLUSTER = SQL(f"""
WITH k AS MATERIALIZED (
    SELECT * FROM unnest({{labs}}::text[], {{bills}}::text[]) AS k (lab_id, bill_id)
)
SELECT {COLUMNS}
FROM ledger.logged_event
JOIN k USING (lab_id, bill_id)
WHERE position <= {{upto}}
""")  # noqa: S608 -- our own names

_BILL_THEN = SQL(f"""
SELECT {COLUMNS}
FROM ledger.logged_event
WHERE
    lab_id = {{lab_id}}
    AND bill_id = {{bill_id}}
    AND received_at <= {{known}}
    AND ({{happened}}::timestamptz IS NULL OR event_time <= {{happened}})
""")  # noqa: S608 -- our own names


def keep_to_indexes(connection: Connection) -> None:
    """Have every statement of this connection go along an index, a row at a time.

    For a batch of bills the planner may take a scan of the whole log, or of the whole state, for
    cheaper: while the tables are young, or their statistics old. And a plan once made for all
    parameters would stay.
    """
    connection.execute(
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;"
        "SET enable_hashjoin = off; SET enable_mergejoin = off;"
        "SET plan_cache_mode = force_custom_plan"
    )


def head(connection: Connection) -> int:
    """Return the last position of the log, 0 if it is empty; all before it can be seen."""
    row = connection.execute(HEAD).fetchone()
    assert row  # noqa: S101 -- a function's result is one row
    return int(row[0])


def after(
    connection: Connection, position: int, upto: int, limit: int, *, labs: Labs = None
) -> Iterator[LogRow]:
    """Yield rows of labs in order of position: those after `position`, none after `upto`.

    `limit` at the most, and fewer where their bodies are more than `BATCH_BYTES`. One body is held
    at a time; take all rows before you use the connection for anything else.
    """
    of_labs: Composable = SQL("")
    if labs is not None:
        of_labs = SQL(" AND lab_id = ANY({}::text[])").format(list(labs))
    query = _AFTER.format(
        after=position, upto=upto, limit=limit, batch_bytes=BATCH_BYTES, of_labs=of_labs
    )
    return one_by_one(connection, query)


def of_bills(connection: Connection, keys: Sequence[Key], upto: int) -> Iterator[LogRow]:
    """Yield all rows of the bills, none after position `upto`, in no order; see `after`."""
    query = choose(connection, _OF_BILLS, _OF_BILLS_ON_CLUSTER).format(
        labs=[lab for lab, _ in keys], bills=[bill for _, bill in keys], upto=upto
    )
    return one_by_one(connection, query)


def bill_then(key: Key, known: datetime, happened: datetime | None) -> Composed:
    """Return the query for the rows of a bill that had been received by `known`.

    With `happened`, only those whose event had happened by then.
    """
    lab_id, bill_id = key
    return _BILL_THEN.format(lab_id=lab_id, bill_id=bill_id, known=known, happened=happened)


def one_by_one(connection: Connection, query: Composed) -> Iterator[LogRow]:
    """Yield the rows of a query for `COLUMNS`, of which one is held at a time."""
    # By COPY, which hands over a row at a time, however large a bill or a batch is.
    copying = SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)
    with connection.cursor().copy(copying) as copy:
        copy.set_types(_TYPES)
        yield from map(LogRow._make, copy.rows())


class LoggedDelivery(NamedTuple):
    """An event of the log with all that is shown of it.

    `body` is the bytes as they came, None once they are erased.
    """

    position: int
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    lab_id: str
    bill_id: str
    body: bytes | None
    is_erasable: bool
    erased_at: datetime | None


SHOWN = """
    position, event_type, event_time, received_at, source, lab_id, bill_id, body, is_erasable,
    erased_at
"""
"""What is selected from `ledger.logged_event` for a `LoggedDelivery`."""
