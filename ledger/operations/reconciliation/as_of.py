"""The state at a log position that it has left behind, so that an old question can be asked again.

Only bills that changed since are folded again, so the cost depends on them, not on the log.
"""

from typing import Any

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Composable

from ledger.eventlog import read
from ledger.model.bill import fold
from ledger.model.bill_history import LoggedEvent
from ledger.model.operators import Labs, as_array
from ledger.projection.delivery_stats import DeliveryStats
from ledger.projection.fold_bills import Projected, add_independent
from ledger.projection.histories import whole_histories
from ledger.projection.read_event import BillEvents, read_row

EVENTS = 5_000
"""Events read at a time."""

_CHANGED = """
SELECT lab_id, bill_id
FROM state.bill
WHERE position > %(position)s AND (%(labs)s::text[] IS NULL OR lab_id = ANY(%(labs)s::text[]))
UNION ALL
SELECT lab_id, bill_id
FROM state.parked_bill
WHERE position > %(position)s AND (%(labs)s::text[] IS NULL OR lab_id = ANY(%(labs)s::text[]))
"""

_THEN = """(
    SELECT m.*
    FROM state.missing_event m
    WHERE NOT EXISTS (
        SELECT FROM state.bill b
        WHERE b.lab_id = m.lab_id AND b.bill_id = m.bill_id AND b.position > %(position)s
    )
    UNION ALL
    SELECT * FROM json_populate_recordset(NULL::state.missing_event, %(past_rows)s::json)
)"""

_EXPECTED_THEN = """(
    SELECT * FROM state.expected_bill WHERE position <= %(position)s
    UNION ALL
    (
        SELECT DISTINCT ON (x.lab_id, x.integrator_id)
            x.lab_id, x.integrator_id, x.position, x.expected_by, e.is_seen
        FROM state.expected_bill e
        JOIN state.expectation x ON x.lab_id = e.lab_id AND x.integrator_id = e.integrator_id
        WHERE e.position > %(position)s AND x.position <= %(position)s
        ORDER BY x.lab_id, x.integrator_id, x.position DESC
    )
)"""

_ELSEWHERE = """
SELECT lab_id, integrator_id FROM state.bill
WHERE integrator_id = ANY(%(ids)s) AND position <= %(position)s
UNION ALL
SELECT f.lab_id, f.integrator_id
FROM state.former_integrator f
LEFT JOIN state.bill b ON b.lab_id = f.lab_id AND b.bill_id = f.bill_id
LEFT JOIN state.parked_bill p ON p.lab_id = f.lab_id AND p.bill_id = f.bill_id
WHERE f.integrator_id = ANY(%(ids)s) AND coalesce(b.position, p.position) <= %(position)s
"""


class Past(Struct, frozen=True):
    """What to read instead of the state.

    `missing` and `expected` stand for state.missing_event and state.expected_bill in a query with
    the parameters `position` and `past_rows`. `seen_later` are labs with integrator ids of which no
    event of that lab had come yet; a lab that is empty stands for all. `since_then` are the
    deliveries since.
    """

    missing: Composable
    expected: Composable
    past_rows: str | None
    seen_later: list[tuple[str, str]]
    since_then: DeliveryStats

    @classmethod
    def none(cls) -> "Past":
        """Return that of a position at which the state still is."""
        return cls(
            SQL("state.missing_event"), SQL("state.expected_bill"), None, [], DeliveryStats.none()
        )


def read_past(connection: Connection, position: int, labs: Labs) -> Past:
    """Work out the state of these labs at a position before the state's own."""
    later, since_then = _since(connection, position, labs)
    before: set[tuple[str, str]] = set()
    rows: list[dict[str, Any]] = []
    keys = connection.execute(_CHANGED, {"position": position, "labs": as_array(labs)}).fetchall()
    changed = {(lab_id, bill_id): BillEvents() for lab_id, bill_id in keys}
    for histories, _ in whole_histories(connection, changed, position):
        for (lab_id, bill_id), events in histories.items():
            before |= {(lab_id, integrator_id) for integrator_id in events.integrator_ids}
            rows += _missing_rows(lab_id, bill_id, events)
    if later:
        ids = sorted({integrator_id for _, integrator_id in later})
        before |= set(connection.execute(_ELSEWHERE, {"ids": ids, "position": position}))
    return Past(
        SQL(_THEN),
        SQL(_EXPECTED_THEN),
        msgspec.json.encode(rows).decode(),
        sorted(_with_any_lab(later) - _with_any_lab(before)),
        since_then,
    )


def _with_any_lab(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Add to labs with integrator ids each id without a lab."""
    return pairs | {("", integrator_id) for _, integrator_id in pairs}


def _since(
    connection: Connection, position: int, labs: Labs
) -> tuple[set[tuple[str, str]], DeliveryStats]:
    """Return what the events after a position brought: integrators, and how they were delivered."""
    integrators: set[tuple[str, str]] = set()
    projected = Projected.nothing()
    row = connection.execute("SELECT position FROM state.checkpoint").fetchone()
    upto = row[0] if row else 0
    before = -1
    while position > before:
        before = position
        for each in read.after(connection, position, upto, EVENTS, labs=labs):
            found = read_row(each)
            add_independent(projected, each, found)
            if isinstance(found, LoggedEvent):
                projected.delivery_stats.add(each.lab_id, [found])
                if found.integrator_id:
                    integrators.add((each.lab_id, found.integrator_id))
            position = each.position
    return integrators, projected.delivery_stats


def _missing_rows(lab_id: str, bill_id: str, events: BillEvents) -> list[dict[str, Any]]:
    if not events.events:
        return []
    try:
        bill = fold(lab_id, bill_id, events.events, events.decisions)
    except Exception:  # noqa: BLE001 -- such a bill is parked, and was then
        return []
    return [
        {
            "lab_id": lab_id,
            "bill_id": bill_id,
            "test_id": missing.test_id or "",
            "integrator_id": bill.summary.integrator_id,
            **{
                name: getattr(missing, name)
                for name in (
                    "event_type", "certainty", "count", "decided", "request", "requested_at",
                    "waived_at",
                )
            },
            **{
                f"evidence_{name}": value
                for name, value in msgspec.structs.asdict(missing.evidence).items()
            },
        }
        for missing in bill.missing_events
    ]  # fmt: skip
