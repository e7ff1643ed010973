"""Keeps what bills are expected, and which of them have been seen.

An expectation that names a lab is seen by an event of that lab alone. It is settled in either
order: when the bill is folded, and when it is said to be expected.
"""

from collections.abc import Sequence

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Composable, Identifier

from ledger.model.operator_events import BillExpected

_SEEN = """(
    EXISTS (
        SELECT FROM {schema}.bill b
        WHERE b.integrator_id = e.integrator_id AND e.lab_id IN (b.lab_id, '')
    )
    OR EXISTS (
        SELECT FROM {schema}.former_integrator f
        WHERE f.integrator_id = e.integrator_id AND e.lab_id IN (f.lab_id, '')
    )
)"""


class LoggedExpectation(Struct, frozen=True):
    """An expectation with its position in the log: of one id from one lab, the last counts."""

    position: int
    decision: BillExpected


def write(connection: Connection, schema: str, expected: Sequence[LoggedExpectation]) -> None:
    """Store expectations, each unless a later one of its lab and id is there."""
    last = {_key(one): one for one in sorted(expected, key=_position)}
    if not last:
        return
    ordered = [one for _, one in sorted(last.items())]  # two writers must not wait for each other
    connection.execute(
        SQL("""
            INSERT INTO {}.expected_bill AS e (lab_id, integrator_id, position, expected_by)
            SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::timestamptz[])
            ON CONFLICT (lab_id, integrator_id) DO UPDATE SET
                position = excluded.position,
                expected_by = excluded.expected_by
            WHERE excluded.position > e.position
        """).format(Identifier(schema)),
        (
            [one.decision.lab_id or "" for one in ordered],
            [one.decision.integrator_id for one in ordered],
            [one.position for one in ordered],
            [one.decision.expected_by for one in ordered],
        ),
    )


def settle(connection: Connection, schema: str, integrator_ids: Sequence[str] | None) -> None:
    """Mark those as seen that are: of these ids, or of all."""
    which: Composable = SQL("true")
    if integrator_ids is not None:
        if not integrator_ids:
            return
        which = SQL("e.integrator_id = ANY(%s)")
    connection.execute(
        SQL(
            "UPDATE {schema}.expected_bill e SET is_seen = true WHERE {which} AND NOT e.is_seen"
            " AND {seen}"
        ).format(
            schema=Identifier(schema),
            which=which,
            seen=SQL(_SEEN).format(schema=Identifier(schema)),
        ),
        () if integrator_ids is None else (sorted(set(integrator_ids)),),
    )


def contradiction(connection: Connection) -> str | None:
    """Return in words the first expectation whose mark is not what the bills say."""
    row = connection.execute(
        SQL(
            "SELECT e.integrator_id, e.is_seen FROM state.expected_bill e"
            " WHERE e.is_seen <> {seen} ORDER BY 1 LIMIT 1"
        ).format(seen=SQL(_SEEN).format(schema=Identifier("state")))
    ).fetchone()
    if row is None:
        return None
    return f"state.expected_bill {row[0]}: is_seen is {row[1]} and the bills say {not row[1]}"


def _key(expected: LoggedExpectation) -> tuple[str, str]:
    return (expected.decision.lab_id or "", expected.decision.integrator_id)


def _position(expected: LoggedExpectation) -> int:
    return expected.position
