"""Reads the event log: its head, what comes after a position, and all events of some bills."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import Connection

from ledger.eventlog.append import Source
from ledger.model.operators import Labs

Key = tuple[str, str]
"""`(lab_id, bill_id)`."""


class LogRow(NamedTuple):
    """One event as the log holds it, with the columns that the fold needs."""

    position: int
    received_at: datetime
    digest: bytes
    lab_id: str
    bill_id: str
    body: bytes
    source: Source


COLUMNS = "position, received_at, digest, lab_id, bill_id, body, source"
"""What is selected from the log for a `LogRow`."""

BATCH_BYTES = 16 * 1024 * 1024
"""Of bodies that `after` returns at the most; the last may go beyond. Bodies can be large."""

HEAD = "SELECT ledger.event_log_head()"

# Sizes are known without the bodies' being read from the disk.
_AFTER = f"""
SELECT {", ".join(LogRow._fields)}
FROM (
    SELECT
        l.*, sum(octet_length(l.body)) OVER (ORDER BY l.position) - octet_length(l.body) AS before
    FROM (
        SELECT {COLUMNS}
        FROM ledger.event_log
        WHERE position > %s AND position <= %s{{labs}}
        ORDER BY position
        LIMIT %s
    ) l
) sized
WHERE before < {BATCH_BYTES}
ORDER BY position
"""  # noqa: S608 -- our own names and number
_AFTER_OF_ALL = _AFTER.format(labs="")
_AFTER_OF_LABS = _AFTER.format(labs=" AND lab_id = ANY(%s::text[])")

# A look-up along the key for each bill, whatever the planner thinks of the log: OFFSET 0 keeps the
# look-up apart, + 0 keeps it off the index on position, ORDER BY on the key.
_OF_BILLS = f"""
SELECT e.*
FROM unnest(%s::text[], %s::text[]) AS k (lab_id, bill_id)
CROSS JOIN LATERAL (
    SELECT {COLUMNS}
    FROM ledger.event_log l
    WHERE l.lab_id = k.lab_id AND l.bill_id = k.bill_id AND l.position + 0 <= %s
    ORDER BY l.lab_id, l.bill_id
    OFFSET 0
) e
"""  # noqa: S608 -- our own names


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
) -> list[LogRow]:
    """Return rows of labs in order of position: those after `position`, none after `upto`.

    `limit` at the most, and fewer where their bodies are more than `BATCH_BYTES`.
    """
    cursor = connection.cursor(binary=True)
    if labs is None:
        cursor.execute(_AFTER_OF_ALL, (position, upto, limit), prepare=True)
    else:
        cursor.execute(_AFTER_OF_LABS, (position, upto, list(labs), limit))
    return list(map(LogRow._make, cursor.fetchall()))


def of_bills(connection: Connection, keys: Sequence[Key], upto: int) -> Iterator[LogRow]:
    """Yield all rows of the bills, none after position `upto`, in no order."""
    cursor = connection.cursor(binary=True)
    cursor.execute(
        _OF_BILLS,
        ([lab for lab, _ in keys], [bill for _, bill in keys], upto),
        prepare=True,
    )
    yield from map(LogRow._make, cursor.fetchall())


class LoggedDelivery(NamedTuple):
    """An event of the log with all that is shown of it; `body` is the bytes as they came."""

    position: int
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    lab_id: str
    bill_id: str
    body: bytes


SHOWN = "position, event_type, event_time, received_at, source, lab_id, bill_id, body"
