"""Expected bills in a list: awaited, unseen by their time, or seen."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString

from msgspec import Struct
from psycopg.sql import SQL, Composable, Composed

from ledger.model.operators import Labs
from ledger.operations.read_models import ExpectedState


class ExpectedItem(Struct, frozen=True):
    """A bill that is or was expected.

    It is `awaited` until `expected_by`, `unseen` after that, and `seen` as soon as an event with
    its integrator id has been received, at whatever time: from its lab, or from any if none is
    named.
    """

    integrator_id: str
    lab_id: str | None
    expected_by: datetime
    state: ExpectedState


LIST: LiteralString = """
SELECT c.position, e.integrator_id, e.lab_id, e.expected_by, e.is_seen
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT e.*
    FROM state.expected_bill e
    WHERE e.expected_by IS NOT NULL AND {where}
    ORDER BY e.expected_by, e.integrator_id, e.lab_id
    LIMIT %(limit)s
) e ON true
ORDER BY e.expected_by, e.integrator_id, e.lab_id
"""
"""A page of the list; an empty page is one row of nulls except for the position."""

IN_STATE: dict[ExpectedState, LiteralString] = {
    "awaited": "NOT e.is_seen AND e.expected_by > %(now)s",
    "unseen": "NOT e.is_seen AND e.expected_by <= %(now)s",
    "seen": "e.is_seen",
}


def item_of(row: Sequence[Any], now: datetime) -> ExpectedItem:
    """Return the item of a row of `LIST`."""
    _, integrator_id, lab_id, expected_by, is_seen = row
    state: ExpectedState = "awaited" if expected_by > now else "unseen"
    return ExpectedItem(
        integrator_id, lab_id or None, expected_by.astimezone(UTC), "seen" if is_seen else state
    )


Cursor = tuple[datetime, str, str]
"""Of the last item of a part: by when it is expected, its integrator id, its lab or nothing."""


def list_query(
    state: ExpectedState | None, now: datetime, *, labs: Labs, after: Cursor | None, limit: int
) -> tuple[Composed, dict[str, Any]]:
    """Return the query for a part of the list, the one expected first in the first place.

    Each of its rows is read by `item_of`, and `cursor_of` goes on after it. Where nothing is found,
    it has one row, of nulls but for the position.
    """
    where: list[Composable] = [SQL("true")]
    values: dict[str, Any] = {"now": now, "limit": limit}
    if state is not None:
        where.append(SQL(IN_STATE[state]))
    if labs is not None:
        where.append(SQL("e.lab_id = ANY(%(labs)s::text[])"))
        values["labs"] = list(labs)
    if after:
        where.append(
            SQL(
                "(e.expected_by, e.integrator_id, e.lab_id)"
                " > (%(after)s, %(after_id)s, %(after_lab)s)"
            )
        )
        values |= dict(zip(("after", "after_id", "after_lab"), after, strict=True))
    return SQL(LIST).format(where=SQL(" AND ").join(where)), values


def cursor_of(row: Sequence[Any]) -> Cursor:
    """Return the cursor that goes on after a row."""
    return row[3].astimezone(UTC), row[1], row[2]
