"""Reads the box of refused deliveries."""

from datetime import UTC, datetime
from typing import Any, LiteralString

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import UnknownSubjectError
from ledger.model.operators import Labs, as_array
from ledger.operations.refused_deliveries.keep import Refusal


class RefusedDelivery(Struct, frozen=True, kw_only=True):
    """A refused delivery in the box, without its body."""

    delivery_id: str
    reason: Refusal
    received_at: datetime
    last_received_at: datetime
    times: int
    client: str
    lab_id: str
    bill_id: str
    event_type: str
    event_time: datetime | None
    bytes: int


Key = tuple[datetime, str]
"""When a delivery was first received, and its id: its place in the order of a list."""


class Selection(Struct, frozen=True):
    """Which refused deliveries: those that meet all conditions that are not None.

    `until` is when they were first received at the latest.
    """

    ids: tuple[str, ...] | None = None
    labs: Labs = None
    reason: Refusal | None = None
    until: datetime | None = None


_COLUMNS = SQL(
    "r.delivery_id, r.reason, r.received_at, r.last_received_at, r.times, r.client, r.lab_id,"
    " r.bill_id, r.event_type, r.event_time, r.bytes"
)

CONDITIONS = SQL("""
    (%(ids)s::text[] IS NULL OR r.delivery_id = ANY(%(ids)s))
    AND (%(labs)s::text[] IS NULL OR r.lab_id = ANY(%(labs)s))
    AND (%(reason)s::text IS NULL OR r.reason = %(reason)s)
    AND (%(until)s::timestamptz IS NULL OR r.received_at <= %(until)s)
""")

_LIST = SQL("""
SELECT {columns}
FROM ledger.refused_delivery r
WHERE
    (%(after_at)s::timestamptz IS NULL
        OR (r.received_at, r.delivery_id) > (%(after_at)s, %(after_id)s))
    AND {conditions}
ORDER BY r.received_at, r.delivery_id
LIMIT %(limit)s
""").format(columns=_COLUMNS, conditions=CONDITIONS)

_ONE = SQL("""
SELECT {columns}, r.body
FROM ledger.refused_delivery r
WHERE {conditions}
""").format(columns=_COLUMNS, conditions=CONDITIONS)

_KNOWN_LAB: LiteralString = """
known_lab AS MATERIALIZED (
    SELECT l.lab_id
    FROM (SELECT DISTINCT r.lab_id FROM ledger.refused_delivery r) l
    WHERE ledger.knows_lab(l.lab_id)
)
"""

COUNTS: LiteralString = f"""
WITH {_KNOWN_LAB}
SELECT
    (SELECT count(*) FROM ledger.refused_delivery),
    (SELECT count(*) FROM ledger.refused_delivery r JOIN known_lab k USING (lab_id)),
    (SELECT count(*) FROM known_lab)
"""  # noqa: S608 -- our own condition
"""How many are in the box, how many of them are of known labs, and of how many such labs."""


class Counts(Struct, frozen=True):
    """The row of `COUNTS`."""

    deliveries: int
    of_known_labs: int
    known_labs: int


BY_LAB_AND_DAY: LiteralString = f"""
WITH {_KNOWN_LAB}
SELECT
    lab_id,
    (r.last_received_at AT TIME ZONE 'UTC')::date AS day,
    count(*),
    sum(r.times),
    min(r.received_at),
    array_agg(DISTINCT r.reason ORDER BY r.reason)
FROM ledger.refused_delivery r
JOIN known_lab k USING (lab_id)
GROUP BY lab_id, day
ORDER BY day, lab_id
"""  # noqa: S608 -- our own condition
"""Of each known lab and each day in UTC: how many, received how often, since when, and why."""


def parameters(selection: Selection) -> dict[str, Any]:
    """Return the parameters of `CONDITIONS`."""
    ids = None if selection.ids is None else list(selection.ids)
    return {
        "ids": ids,
        "labs": as_array(selection.labs),
        "reason": selection.reason,
        "until": selection.until,
    }


def _item(row: tuple[Any, ...]) -> RefusedDelivery:
    fields = dict(zip(RefusedDelivery.__struct_fields__, row, strict=True))
    for name in ("received_at", "last_received_at", "event_time"):
        fields[name] = fields[name] and fields[name].astimezone(UTC)
    return RefusedDelivery(**fields)


def list_refused(
    connection: Connection, selection: Selection, *, limit: int, after: Key | None = None
) -> list[RefusedDelivery]:
    """Return deliveries in the box, the first received first, after the one with a key."""
    after_at, after_id = after or (None, None)
    values = {"limit": limit, "after_at": after_at, "after_id": after_id}
    rows = connection.execute(_LIST, {**parameters(selection), **values})
    return [_item(row) for row in rows]


def read_refused(
    connection: Connection, delivery_id: str, *, labs: Labs = None
) -> tuple[RefusedDelivery, bytes]:
    """Return one delivery and its body. Raises `UnknownSubjectError` if `labs` have none."""
    one = Selection(ids=(delivery_id,), labs=labs)
    row = connection.execute(_ONE, parameters(one)).fetchone()
    if row is None:
        raise unknown([delivery_id])
    return _item(row[:-1]), bytes(row[-1])


def unknown(ids: list[str]) -> UnknownSubjectError:
    """Say that the box holds no deliveries with these ids."""
    named = ", ".join(map(repr, ids[:10])) + (" and others" if len(ids) > 10 else "")  # noqa: PLR2004 -- enough to see which
    return UnknownSubjectError(
        f"there is no refused delivery {named}: it was accepted, dropped or is too old; "
        "`ledger refused list` and GET /v1/refused-deliveries list those that there are"
    )


def count_refused(connection: Connection) -> Counts:
    """Count what is in the box."""
    row = connection.execute(COUNTS.encode()).fetchone()
    assert row  # noqa: S101 -- counts always return one
    return Counts(*row)
