"""Accepts refused deliveries into the log, or drops them.

A delivery leaves the box in the transaction that appends it and the decision to the log. So it
enters the log once, whoever decides at the same time and whenever the process is killed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.eventlog import read
from ledger.eventlog.append import Delivery
from ledger.model.operator_events import DeliveriesAccepted, DeliveriesDropped, DroppedDelivery
from ledger.model.operators import Operator
from ledger.operations.decisions import append_or_refuse, deciding_without_state, record
from ledger.operations.refused_deliveries.queries import (
    CONDITIONS,
    Selection,
    parameters,
    unknown,
)

BATCH = 500
"""Deliveries in one transaction, which holds the lane for its while: webhooks wait meanwhile."""

BATCH_BYTES = 8 * 1024 * 1024

_SELECTED = SQL("""
SELECT r.delivery_id, r.lab_id, r.bytes
FROM ledger.refused_delivery r
WHERE {conditions}
ORDER BY r.received_at, r.delivery_id
""").format(conditions=CONDITIONS)

_TAKE = """
DELETE FROM ledger.refused_delivery
WHERE delivery_id = ANY(%s)
RETURNING received_at, delivery_id, body, lab_id, bill_id, event_type, digest
"""


class Accepted(Struct, frozen=True, kw_only=True):
    """How many refused deliveries were accepted, or would be: in all, and by lab.

    `recorded` of them are new in the log; the others were there already.
    """

    accepted: int
    recorded: int
    labs: dict[str, int]
    dry_run: bool


class Dropped(Struct, frozen=True, kw_only=True):
    """How many refused deliveries were dropped, or would be: in all, and by lab."""

    dropped: int
    labs: dict[str, int]
    dry_run: bool


def accept(url: str, selection: Selection, *, by: Operator, dry_run: bool) -> tuple[Accepted, int]:
    """Append the selected deliveries to the log, with the time at which each was first received.

    Hundreds in a transaction; if it is interrupted, run it again. Returns the log position for
    which the result is true. Raises `UnknownSubjectError` for an id that is not in the box, before
    anything is accepted; `DecisionError`.
    """
    recorded = 0

    def decide(connection: Connection, rows: list[tuple[Any, ...]]) -> int:
        nonlocal recorded
        outcomes = append_or_refuse(
            connection,
            [Delivery.of(row[2], received_at=row[0], source="webhook") for row in rows],
        )
        new = sum(outcome.recorded for outcome in outcomes)
        recorded += new
        decision = DeliveriesAccepted(
            at=datetime.now(UTC),
            by=by.name,
            by_key=by.key,
            count=len(rows),
            recorded=new,
            positions=[outcome.position for outcome in outcomes],
        )
        return record(connection, [decision])

    labs, position = _decide(url, selection, decide, dry_run=dry_run)
    made = Accepted(accepted=labs.total(), recorded=recorded, labs=dict(labs), dry_run=dry_run)
    return made, position


def drop(url: str, selection: Selection, *, by: Operator, dry_run: bool) -> tuple[Dropped, int]:
    """Delete the selected deliveries from the box. Returns and raises what `accept` does."""

    def decide(connection: Connection, rows: list[tuple[Any, ...]]) -> int:
        decision = DeliveriesDropped(
            at=datetime.now(UTC),
            by=by.name,
            by_key=by.key,
            count=len(rows),
            deliveries=[
                DroppedDelivery(lab_id, bill_id, event_type, digest.hex())
                for _, _, _, lab_id, bill_id, event_type, digest in rows
            ],
        )
        return record(connection, [decision])

    labs, position = _decide(url, selection, decide, dry_run=dry_run)
    return Dropped(dropped=labs.total(), labs=dict(labs), dry_run=dry_run), position


def _decide(
    url: str,
    selection: Selection,
    decide: Callable[[Connection, list[tuple[Any, ...]]], int],
    *,
    dry_run: bool,
) -> tuple[Counter[str], int]:
    """Take the selected deliveries out of the box and decide about them, batch by batch."""
    labs: Counter[str] = Counter()
    with deciding_without_state(url) as connection:
        found = connection.execute(_SELECTED, parameters(selection)).fetchall()
        there = {row[0] for row in found}
        if missing := sorted(set(selection.ids or ()) - there):
            raise unknown(missing)
        if dry_run:
            return Counter(lab for _, lab, _ in found), read.head(connection)
        position = None
        for ids in _batches(found):
            with connection.transaction():
                rows = connection.execute(_TAKE, (ids,)).fetchall()
                if rows:  # the box may have made room meanwhile
                    position = decide(connection, sorted(rows))
            labs.update(row[3] for row in rows)
        return labs, read.head(connection) if position is None else position


def _batches(found: list[tuple[str, str, int]]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for delivery_id, _, length in found:
        if batch and (len(batch) >= BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(delivery_id)
        size += length
    if batch:
        yield batch
