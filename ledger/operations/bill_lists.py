"""Lists of bills: the query for a part of one, and the search by any identifier."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString

from msgspec import Struct
from psycopg.sql import SQL, Composable, Composed, Placeholder

from ledger.model.bill import BillSummary
from ledger.model.operators import Labs, as_array
from ledger.operations.missing_events.queries import SUBSCRIBED, Parameters, parameters
from ledger.operations.policy import Policy

SUMMARY_COLUMNS: LiteralString = """
    b.integrator_id, b.state, b.flabs_status, b.created_at, b.completed_at, b.deleted_at,
    b.report_url, b.reports_total, b.reports_completed, b.findings, b.events, b.first_received_at,
    b.last_received_at, b.last_event_at, b.position
"""
"""The columns of a row of state.bill b that follow its key in a `BillSummary`."""

MOST_FOUND = 25
"""Bills of each kind that a search finds."""

_MISSING: LiteralString = f"""
    CASE WHEN b.missing > 0 THEN (
        SELECT count(*)
        FROM state.missing_event m
        WHERE m.lab_id = b.lab_id AND m.bill_id = b.bill_id AND {SUBSCRIBED}
    ) ELSE 0 END AS missing
"""  # noqa: S608 -- our own condition

_LIST: LiteralString = """
SELECT
    c.position,
    b.lab_id,
    b.bill_id,
    {columns},
    {missing}
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT *
    FROM state.bill b
    WHERE {where}
    ORDER BY b.position {direction}
    LIMIT %(limit)s
) b ON true
ORDER BY b.position {direction}
"""

# From lab to lab along the key: there is no index of bills without their labs. The labs are few.
_SEARCH: LiteralString = """
WITH lab AS (
    SELECT l.lab_id
    FROM state.lab l
    WHERE %(labs)s::text[] IS NULL OR l.lab_id = ANY(%(labs)s::text[])
),
found AS (
    (
        SELECT 'bill' AS matched, f.lab_id, f.bill_id
        FROM lab
        CROSS JOIN LATERAL (
            SELECT b.lab_id, b.bill_id
            FROM state.bill b
            WHERE b.lab_id = lab.lab_id AND b.bill_id >= %(from)s AND b.bill_id < %(to)s
            ORDER BY b.lab_id, b.bill_id
            LIMIT %(limit)s
        ) f
        ORDER BY f.bill_id, f.lab_id
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT 'integrator', b.lab_id, b.bill_id
        FROM state.bill b
        WHERE
            b.integrator_id >= %(from)s AND b.integrator_id < %(to)s
            AND (%(labs)s::text[] IS NULL OR b.lab_id = ANY(%(labs)s::text[]))
        ORDER BY b.integrator_id, b.position
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT 'test', r.lab_id, r.bill_id
        FROM state.report r
        WHERE
            r.test_id >= %(from)s AND r.test_id < %(to)s
            AND (%(labs)s::text[] IS NULL OR r.lab_id = ANY(%(labs)s::text[]))
        ORDER BY r.test_id, r.position
        LIMIT %(limit)s
    )
)
SELECT c.position, f.matched, b.lab_id, b.bill_id, {columns}, {missing}
FROM state.checkpoint c
LEFT JOIN (found f JOIN state.bill b ON b.lab_id = f.lab_id AND b.bill_id = f.bill_id) ON true
"""

_LABS = """
SELECT l.lab_id
FROM state.lab l
WHERE
    l.lab_id >= %(from)s AND l.lab_id < %(to)s
    AND (%(labs)s::text[] IS NULL OR l.lab_id = ANY(%(labs)s::text[]))
ORDER BY l.lab_id
LIMIT %(limit)s
"""

Condition = tuple[str, Any]


class ListedBill(Struct, frozen=True):
    """A bill in a list, with how many events of it are missing. `matched`: what a search found."""

    summary: BillSummary
    missing: int
    matched: str | None = None


def bill_summary(lab_id: str, bill_id: str, columns: Sequence[Any]) -> BillSummary:
    """Return the summary of a row of state.bill: its key, and `SUMMARY_COLUMNS`."""
    return BillSummary(lab_id, bill_id, *columns)


def of_labs(labs: Labs) -> list[Condition]:
    """Return the condition that bills are of some labs; one lab has an index of its own."""
    if labs is None:
        return []
    return [("b.lab_id = {}", labs[0]) if len(labs) == 1 else ("b.lab_id = ANY({})", list(labs))]


def list_query(
    conditions: Sequence[Condition],
    policy: Policy,
    now: datetime,
    *,
    limit: int,
    newest_first: bool,
) -> tuple[Composed, Parameters]:
    """Return the query for a part of a list, whose rows `listed` reads.

    A condition is SQL about `state.bill b` with {} for its value.
    """
    where: list[Composable] = [SQL("true")]
    values: Parameters = {**parameters(policy, now), "limit": limit}
    for number, (condition, value) in enumerate(conditions):
        where.append(SQL(condition).format(Placeholder(f"value_{number}")))
        values[f"value_{number}"] = value
    query = SQL(_LIST).format(
        columns=SQL(SUMMARY_COLUMNS),
        missing=SQL(_MISSING),
        where=SQL(" AND ").join(where),
        direction=SQL("DESC" if newest_first else "ASC"),
    )
    return query, values


def listed(rows: Sequence[tuple[Any, ...]]) -> list[ListedBill]:
    """Return the bills of the rows of `list_query`; where there is none, one row has no bill."""
    return [
        ListedBill(bill_summary(lab_id, bill_id, columns), missing)
        for _, lab_id, bill_id, *columns, missing in rows
        if lab_id is not None
    ]


def search_query(
    text: str, policy: Policy, now: datetime, *, labs: Labs
) -> tuple[Composed, Parameters]:
    """Return the query for bills whose id, integrator id or test id is `text` or begins with it.

    It finds one more of each kind than `MOST_FOUND`, if there are more.
    """
    query = SQL(_SEARCH).format(columns=SQL(SUMMARY_COLUMNS), missing=SQL(_MISSING))
    return query, {**parameters(policy, now), **_range(text, labs)}


def labs_query(text: str, *, labs: Labs) -> tuple[SQL, Parameters]:
    """Return the query for the ids of labs that are `text` or begin with it."""
    return SQL(_LABS), _range(text, labs)


def found(rows: Sequence[tuple[Any, ...]]) -> list[ListedBill]:
    """Return the bills of the rows of `search_query`, each once, exact matches first."""
    bills: dict[tuple[str, str], ListedBill] = {}
    for _, matched, lab_id, bill_id, *columns, missing in rows:
        if lab_id is not None:
            one = ListedBill(bill_summary(lab_id, bill_id, columns), missing, matched)
            bills.setdefault((lab_id, bill_id), one)
    return list(bills.values())


def _range(text: str, labs: Labs) -> Parameters:
    """Return the bounds of what begins with `text`, in the order of bytes."""
    after = text + "\U0010ffff"
    return {"from": text, "to": after, "labs": as_array(labs), "limit": MOST_FOUND + 1}
