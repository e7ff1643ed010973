"""Missing events as they are asked for: which are subscribed, and in which state each is now."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, LiteralString

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Composable, Composed

from ledger.event_types import EventType
from ledger.model.missing_events import Certainty, Evidence, MissingEvent, MissingState
from ledger.model.operators import Labs, as_array
from ledger.operations.policy import Policy
from ledger.operations.read_models import MissingEventItem

Parameters = dict[str, Any]

SUBSCRIBED: LiteralString = """m.event_type = ANY(coalesce(
    (
        SELECT s.events FROM state.subscription s
        WHERE s.lab_id = m.lab_id AND s.position <= %(position)s
        ORDER BY s.position DESC LIMIT 1
    ),
    %(events)s
))"""
"""The condition on a row `m` of state.missing_event; only what is subscribed can be missing."""

COLUMNS: LiteralString = """
    m.event_type, m.test_id, m.certainty, m.count, m.evidence_position, m.evidence_event_type,
    m.evidence_event_time, m.evidence_received_at, m.decided, m.request, m.requested_at,
    m.waived_at
"""
"""A row of state.missing_event m, to be read as `StoredMissing`."""

ORDER: LiteralString = "m.evidence_received_at, m.lab_id, m.bill_id, m.test_id, m.event_type"
"""The oldest first."""

STATE: LiteralString = """ledger.missing_event_state(
    m.waived_at, m.requested_at, m.evidence_received_at + %(budget)s, %(now)s
)"""
"""The state of a row of state.missing_event m at the time `now`."""

# What follows the state in a condition is implied by it, and lets an index find the rows.
IN_STATE: dict[MissingState, LiteralString] = {
    "waived": f"m.waived_at IS NOT NULL AND {STATE} = 'waived'",
    "requested": f"m.waived_at IS NULL AND {STATE} = 'requested'",
    "overdue": "m.waived_at IS NULL AND m.evidence_received_at <= %(overdue_since)s"
    f" AND {STATE} = 'overdue'",
    "awaiting_retry": "m.waived_at IS NULL AND m.evidence_received_at > %(overdue_since)s"
    f" AND {STATE} = 'awaiting_retry'",
}
"""The condition for each state."""

LAST_POSITION = 2**63 - 1


class StoredMissing(Struct, frozen=True, array_like=True):
    """A missing event as it comes out of the database."""

    event_type: EventType
    test_id: str
    certainty: Certainty
    count: int
    evidence_position: int
    evidence_event_type: str
    evidence_event_time: datetime
    evidence_received_at: datetime
    decided: int
    request: int | None
    requested_at: datetime | None
    waived_at: datetime | None

    def folded(self) -> MissingEvent:
        """Return it as the fold made it."""
        return MissingEvent(
            event_type=self.event_type,
            test_id=self.test_id or None,
            certainty=self.certainty,
            count=self.count,
            evidence=Evidence(
                position=self.evidence_position,
                event_type=self.evidence_event_type,
                event_time=self.evidence_event_time.astimezone(UTC),
                received_at=self.evidence_received_at.astimezone(UTC),
            ),
            decided=self.decided,
            request=self.request,
            requested_at=self.requested_at,
            waived_at=self.waived_at,
        )


decode_many = msgspec.json.Decoder(list[StoredMissing]).decode


class Filter(Struct, frozen=True, kw_only=True):
    """Which missing events are meant; None stands for all."""

    state: MissingState | None = None
    lab_id: str | None = None
    labs: Labs = None
    """Only of these labs; None: of all."""
    bill_id: str | None = None
    test_id: str | None = None
    event_type: str | None = None
    certainty: Certainty | None = None
    known_before: datetime | None = None
    """Those whose evidence was received before this time."""


def parameters(policy: Policy, now: datetime, *, position: int = LAST_POSITION) -> Parameters:
    """Return what the conditions of this module name."""
    return {
        "events": list(policy.events),
        "now": now,
        "budget": policy.budget,
        "overdue_since": now - policy.budget,
        "position": position,
    }


def conditions(wanted: Filter) -> tuple[list[Composable], Parameters]:
    """Return the conditions on `m` of a filter, with the values that they name."""
    found: list[Composable] = [SQL(SUBSCRIBED)]
    values: Parameters = {}
    if wanted.state is not None:
        found.append(SQL(IN_STATE[wanted.state]))
    if wanted.known_before is not None:
        found.append(SQL("m.evidence_received_at < %(known_before)s"))
        values["known_before"] = wanted.known_before
    if wanted.labs is not None and len(wanted.labs) == 1:  # which has an index of its own
        found.append(SQL("m.lab_id = %(only_lab)s"))
        values["only_lab"] = wanted.labs[0]
    elif wanted.labs is not None:
        found.append(SQL("m.lab_id = ANY(%(labs)s::text[])"))
        values["labs"] = as_array(wanted.labs)
    for name in ("lab_id", "bill_id", "test_id", "event_type", "certainty"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(SQL(f"m.{name} = %({name})s"))
            values[name] = value
    return found, values


_LIST = SQL("""
SELECT c.position, m.*
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT *
    FROM ({rows}) m
    ORDER BY {order}
    LIMIT %(limit)s
) m ON true
ORDER BY {order}
""")

_ROWS = SQL("""
    (
        SELECT m.lab_id, m.bill_id, m.integrator_id, {columns}
        FROM state.missing_event m
        WHERE {where}
        ORDER BY {order}
        LIMIT %(limit)s
    )
""")

# Each kind has an index of its own, in the order of the list.
_KINDS = (SQL("m.waived_at IS NULL"), SQL("m.waived_at IS NOT NULL"))

Cursor = tuple[datetime, str, str, str, str]
"""Of the last item of a part: when its evidence was received, lab, bill, test, event type."""


def list_query(
    wanted: Filter, policy: Policy, now: datetime, *, limit: int, after: Cursor | None
) -> tuple[Composed, Parameters]:
    """Return the query for a part of the list, whose rows begin with the state's position.

    Where nothing is found it has one row, of nulls but for that.
    """
    where, values = conditions(wanted)
    if after:
        where.append(
            SQL(
                "(m.evidence_received_at, m.lab_id, m.bill_id, m.test_id, m.event_type)"
                " > (%(after_0)s, %(after_1)s, %(after_2)s, %(after_3)s, %(after_4)s)"
            )
        )
        values |= {f"after_{index}": part for index, part in enumerate(after)}
    # Of any state, what is waived and what is not are two lists, so that each is read in order.
    kinds = [[*where, kind] for kind in _KINDS] if wanted.state is None else [where]
    rows = SQL(" UNION ALL ").join(
        _ROWS.format(columns=SQL(COLUMNS), where=SQL(" AND ").join(kind), order=SQL(ORDER))
        for kind in kinds
    )
    query = _LIST.format(rows=rows, order=SQL(ORDER))
    return query, {**parameters(policy, now), **values, "limit": limit}


@contextmanager
def in_order(connection: Connection) -> Iterator[None]:
    """Have statements read the oldest missing events along an index, and stop at their limit.

    The planner takes the conditions for rarer than they are, and would read and sort all there are.
    """
    with connection.transaction():
        connection.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;"
            "SET LOCAL enable_sort = off"
        )
        yield


def cursor_of(row: tuple[Any, ...]) -> Cursor:
    """Return the cursor that goes on after a row of the list."""
    stored = StoredMissing(*row[4:])
    received = stored.evidence_received_at.astimezone(UTC)
    return (received, row[1], row[2], stored.test_id, stored.event_type)


def item_of(row: tuple[Any, ...], policy: Policy, now: datetime) -> MissingEventItem:
    """Return the item of a row: lab, bill, integrator id, then `COLUMNS`."""
    return items([StoredMissing(*row[3:]).folded()], (row[0], row[1]), row[2], policy, now)[0]


def items(
    missing: Iterable[MissingEvent],
    key: tuple[str, str],
    integrator_id: str | None,
    policy: Policy,
    now: datetime,
) -> list[MissingEventItem]:
    """Return missing events of one bill as they are at the time `now`."""
    return [
        MissingEventItem.of(
            one,
            key,
            integrator_id,
            state=one.state(now, policy.budget),
            due_at=one.due_at(policy.budget),
        )
        for one in missing
    ]
