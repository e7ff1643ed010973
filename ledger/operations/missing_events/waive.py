"""Waives missing events: one by name, or all that a filter finds."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import DecisionError, UnknownSubjectError
from ledger.event_types import EventType
from ledger.model.operator_events import EventWaived
from ledger.operations.decisions import catch_up, deciding, record, see
from ledger.operations.missing_events.queries import (
    COLUMNS,
    ORDER,
    SUBSCRIBED,
    Filter,
    StoredMissing,
    conditions,
    item_of,
    parameters,
)
from ledger.operations.policy import Policy
from ledger.operations.read_models import MissingEventItem
from ledger.projection import store

Subject = tuple[str, str, EventType, str | None]
"""A missing event by name: lab, bill, event type, test."""

BATCH = 2_000
"""Waivers in one transaction, so that a hundred thousand of them keep no webhook waiting."""

_OF_BILL = SQL("""
SELECT m.lab_id, m.bill_id, m.integrator_id, {columns}
FROM state.missing_event m
WHERE m.lab_id = %(lab_id)s AND m.bill_id = %(bill_id)s AND {subscribed}
ORDER BY m.test_id, m.event_type
""").format(columns=SQL(COLUMNS), subscribed=SQL(SUBSCRIBED))

_MATCHING = SQL("""
SELECT m.lab_id, m.bill_id, m.integrator_id, {columns}
FROM state.missing_event m
WHERE m.waived_at IS NULL AND m.requested_at IS NULL AND {where}
ORDER BY {order}
""")


class Waived(Struct, frozen=True):
    """How many missing events were waived, or would be: in all, and by lab and type."""

    waived: int
    labs: dict[str, dict[str, int]]
    dry_run: bool


def waive(
    url: str,
    policy: Policy,
    subject: Subject,
    *,
    reason: str,
    by: str,
    patience: float,
) -> tuple[MissingEventItem, int]:
    """Waive one missing event; say how it is then.

    Returns it with the position for which that is true. One that is waived already stays as it is.
    Raises `UnknownSubjectError` if it is not missing, with what is; `DecisionError`.
    """
    lab_id, bill_id, event_type, test_id = subject
    with deciding(url, patience=patience) as connection:
        rows = _of_bill(connection, policy, subject)
        stored = next((row for row in map(_stored, rows) if _is(row, subject)), None)
        if stored is None:
            raise UnknownSubjectError(_what_is_missing(connection, subject, map(_stored, rows)))
        position = None
        if stored.waived_at is None:
            decision = EventWaived(
                at=datetime.now(UTC),
                by=by,
                lab_id=lab_id,
                bill_id=bill_id,
                event_type=event_type,
                test_id=test_id,
                count=stored.count,
                reason=reason,
            )
            position = record(connection, [decision])
        position = see(url, connection, patience=patience, position=position)
        for row in _of_bill(connection, policy, subject):
            if _is(_stored(row), subject):
                return item_of(row, policy, datetime.now(UTC)), position
    raise UnknownSubjectError("it has just come: nothing had to be waived")


def waive_matching(
    url: str,
    policy: Policy,
    wanted: Filter,
    *,
    reason: str,
    by: str,
    dry_run: bool,
    patience: float,
) -> tuple[Waived, int]:
    """Waive all that a filter finds and that was not asked for; or, `dry_run`, count them.

    Thousands in a transaction; interrupted, it is run again. Returns the position for which the
    waivers are true. Raises `DecisionError`.
    """
    labs: dict[str, Counter[str]] = {}
    with deciding(url, patience=patience) as connection:
        # All are read before the first is decided: what a transaction decides changes the rows.
        found = _matching(connection, policy, wanted)
        for row in found:
            labs.setdefault(row[0], Counter())[row[3]] += 1
        position = store.read_checkpoint(connection).position
        if not dry_run:
            for start in range(0, len(found), BATCH):
                now = datetime.now(UTC)
                position = record(
                    connection,
                    [
                        EventWaived(
                            at=now,
                            by=by,
                            lab_id=lab_id,
                            bill_id=bill_id,
                            event_type=stored.event_type,
                            test_id=stored.test_id or None,
                            count=stored.count,
                            reason=reason,
                        )
                        for lab_id, bill_id, _, *columns in found[start : start + BATCH]
                        for stored in [StoredMissing(*columns)]
                    ],
                )
            with suppress(DecisionError):  # they are waived
                catch_up(url, connection, patience=patience, upto=position)
    waived = Waived(
        len(found),
        {lab: dict(sorted(types.items())) for lab, types in sorted(labs.items())},
        dry_run,
    )
    return waived, position


Row = tuple[Any, ...]
"""Lab, bill, integrator id, then the columns of a `StoredMissing`."""


def _of_bill(connection: Connection, policy: Policy, subject: Subject) -> list[Row]:
    values = {**parameters(policy, datetime.now(UTC)), "lab_id": subject[0], "bill_id": subject[1]}
    return connection.execute(_OF_BILL, values).fetchall()


def _matching(connection: Connection, policy: Policy, wanted: Filter) -> list[Row]:
    where, values = conditions(wanted)
    query = _MATCHING.format(columns=SQL(COLUMNS), where=SQL(" AND ").join(where), order=SQL(ORDER))
    return connection.execute(query, {**parameters(policy, datetime.now(UTC)), **values}).fetchall()


def _stored(row: Row) -> StoredMissing:
    return StoredMissing(*row[3:])


def _is(stored: StoredMissing, subject: Subject) -> bool:
    return (stored.event_type, stored.test_id) == (subject[2], subject[3] or "")


def _what_is_missing(
    connection: Connection, subject: Subject, found: Iterable[StoredMissing]
) -> str:
    lab_id, bill_id, event_type, test_id = subject
    bill = f"bill {bill_id!r} of lab {lab_id!r}"
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM state.bill WHERE lab_id = %s AND bill_id = %s)",
        (lab_id, bill_id),
    ).fetchone()
    if not (row and row[0]):
        return f"no event of {bill} has been received, so none of it is missing"
    missing = [
        f"{one.event_type}{f' of test {one.test_id!r}' if one.test_id else ''}" for one in found
    ]
    wanted = f"{event_type}{f' of test {test_id!r}' if test_id else ''}"
    there = f"missing are: {', '.join(missing)}" if missing else "nothing of it is missing"
    return f"{wanted} of {bill} is not missing; {there}"
