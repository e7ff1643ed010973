"""Waives missing events and takes waivers back: of one event by name, or of all that match."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, LiteralString

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import DecisionError, UnknownSubjectError
from ledger.event_types import EventType
from ledger.eventlog.read import Key
from ledger.model.operator_events import AnyDecision, EventUnwaived, EventWaived
from ledger.model.operators import Labs, Operator, as_array, concerns
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

EventName = tuple[str, str, EventType, str | None]
"""The name of a missing event: lab, bill, event type, test."""

BATCH = 2_000
"""Decisions in one transaction, so that a hundred thousand of them keep no webhook waiting."""

_OF_BILL = SQL("""
SELECT m.lab_id, m.bill_id, m.integrator_id, {columns}
FROM state.missing_event m
WHERE m.lab_id = %(lab_id)s AND m.bill_id = %(bill_id)s AND {subscribed}
    AND (%(labs)s::text[] IS NULL OR m.lab_id = ANY(%(labs)s::text[]))
ORDER BY m.test_id, m.event_type
""").format(columns=SQL(COLUMNS), subscribed=SQL(SUBSCRIBED))

_MATCHING = SQL("""
SELECT m.lab_id, m.bill_id, m.integrator_id, {columns}
FROM state.missing_event m
WHERE {eligible} AND {where}
ORDER BY {order}
""")

_TO_WAIVE: LiteralString = "m.waived_at IS NULL AND m.requested_at IS NULL"
_TO_UNWAIVE: LiteralString = "m.waived_at IS NOT NULL"


class Waived(Struct, frozen=True):
    """How many missing events were waived, or would be: in all, and by lab and event type."""

    waived: int
    labs: dict[str, dict[str, int]]
    dry_run: bool


class Unwaived(Struct, frozen=True):
    """How many waivers were taken back, or would be: in all, and by lab and event type."""

    unwaived: int
    labs: dict[str, dict[str, int]]
    dry_run: bool


def waive(
    url: str,
    policy: Policy,
    name: EventName,
    *,
    reason: str,
    by: Operator,
    patience: float,
) -> tuple[MissingEventItem, int]:
    """Waive one missing event; return it as it is then, and the position for which that is true.

    An event that is waived already stays as it is. Raises `UnknownSubjectError`, which lists what
    is missing, if the event is not; `DecisionError`.
    """

    def decide(stored: StoredMissing) -> EventWaived | None:
        if stored.waived_at is not None:
            return None
        return _waiver(name[:2], stored, reason=reason, by=by)

    return _decide_one(url, policy, name, decide, labs=by.labs, patience=patience)


def unwaive(
    url: str,
    policy: Policy,
    name: EventName,
    *,
    reason: str | None,
    by: Operator,
    patience: float,
) -> tuple[MissingEventItem, int]:
    """Take back the waiver of one missing event; return the event and the position as `waive` does.

    An event that is not waived, not even in part, stays as it is. Raises what `waive` raises.
    """

    def decide(stored: StoredMissing) -> EventUnwaived | None:
        # Part of several reports may be waived: `decided` then counts what was requested, too.
        if stored.waived_at is None and (not stored.decided or stored.requested_at is not None):
            return None
        return _unwaiver(name[:2], stored, reason=reason, by=by)

    return _decide_one(url, policy, name, decide, labs=by.labs, patience=patience)


def waive_matching(
    url: str,
    policy: Policy,
    wanted: Filter,
    *,
    reason: str,
    by: Operator,
    dry_run: bool,
    patience: float,
) -> tuple[Waived, int]:
    """Waive all events that match and are neither waived nor requested; `dry_run` only counts them.

    Decides thousands in a transaction; if it is interrupted, run it again. Returns the position for
    which the waivers are true. Raises `DecisionError`.
    """

    def decide(key: Key, stored: StoredMissing) -> EventWaived:
        return _waiver(key, stored, reason=reason, by=by)

    labs, position = _decide_matching(
        url, policy, _limited(wanted, by), _TO_WAIVE, decide, dry_run=dry_run, patience=patience
    )
    return Waived(_total(labs), labs, dry_run), position


def unwaive_matching(
    url: str,
    policy: Policy,
    wanted: Filter,
    *,
    reason: str | None,
    by: Operator,
    dry_run: bool,
    patience: float,
) -> tuple[Unwaived, int]:
    """Take back the waivers of all events that match and are waived, as `waive_matching` does."""

    def decide(key: Key, stored: StoredMissing) -> EventUnwaived:
        return _unwaiver(key, stored, reason=reason, by=by)

    labs, position = _decide_matching(
        url, policy, _limited(wanted, by), _TO_UNWAIVE, decide, dry_run=dry_run, patience=patience
    )
    return Unwaived(_total(labs), labs, dry_run), position


def _limited(wanted: Filter, by: Operator) -> Filter:
    return msgspec.structs.replace(wanted, labs=by.labs)


def _waiver(key: Key, stored: StoredMissing, *, reason: str, by: Operator) -> EventWaived:
    return EventWaived(
        at=datetime.now(UTC),
        by=by.name,
        by_key=by.key,
        lab_id=key[0],
        bill_id=key[1],
        event_type=stored.event_type,
        test_id=stored.test_id or None,
        count=stored.count,
        reason=reason,
    )


def _unwaiver(
    key: Key, stored: StoredMissing, *, reason: str | None, by: Operator
) -> EventUnwaived:
    return EventUnwaived(
        at=datetime.now(UTC),
        by=by.name,
        by_key=by.key,
        lab_id=key[0],
        bill_id=key[1],
        event_type=stored.event_type,
        test_id=stored.test_id or None,
        count=stored.count,
        reason=reason,
    )


def _decide_one(
    url: str,
    policy: Policy,
    name: EventName,
    decide: Callable[[StoredMissing], AnyDecision | None],
    *,
    labs: Labs,
    patience: float,
) -> tuple[MissingEventItem, int]:
    with deciding(url, patience=patience) as connection:
        rows = _of_bill(connection, policy, name, labs)
        stored = next((row for row in map(_stored, rows) if _is(row, name)), None)
        if stored is None:
            raise UnknownSubjectError(_what_is_missing(connection, name, map(_stored, rows), labs))
        decision = decide(stored)
        position = record(connection, [decision]) if decision else None
        position = see(url, connection, patience=patience, position=position)
        for row in _of_bill(connection, policy, name, labs):
            if _is(_stored(row), name):
                return item_of(row, policy, datetime.now(UTC)), position
    raise UnknownSubjectError("the event has just arrived, so it is not missing any more")


def _decide_matching(
    url: str,
    policy: Policy,
    wanted: Filter,
    eligible: LiteralString,
    decide: Callable[[Key, StoredMissing], AnyDecision],
    *,
    dry_run: bool,
    patience: float,
) -> tuple[dict[str, dict[str, int]], int]:
    """Decide about all events that match; return how many they are by lab and event type."""
    labs: dict[str, Counter[str]] = {}
    with deciding(url, patience=patience) as connection:
        # All are read before the first decision, because a decision changes what matches.
        found = _matching(connection, policy, wanted, eligible)
        for row in found:
            labs.setdefault(row[0], Counter())[row[3]] += 1
        position = store.read_checkpoint(connection).position
        if not dry_run:
            for start in range(0, len(found), BATCH):
                position = record(
                    connection,
                    [decide(row[:2], _stored(row)) for row in found[start : start + BATCH]],
                )
            with suppress(DecisionError):  # the decisions are recorded all the same
                catch_up(url, connection, patience=patience, upto=position)
    return {lab: dict(sorted(types.items())) for lab, types in sorted(labs.items())}, position


def _total(labs: dict[str, dict[str, int]]) -> int:
    return sum(sum(types.values()) for types in labs.values())


Row = tuple[Any, ...]
"""Lab, bill, integrator id, then the columns of a `StoredMissing`."""


def _of_bill(connection: Connection, policy: Policy, name: EventName, labs: Labs) -> list[Row]:
    values = {
        **parameters(policy, datetime.now(UTC)),
        "lab_id": name[0],
        "bill_id": name[1],
        "labs": as_array(labs),
    }
    return connection.execute(_OF_BILL, values).fetchall()


def _matching(
    connection: Connection, policy: Policy, wanted: Filter, eligible: LiteralString
) -> list[Row]:
    where, values = conditions(wanted)
    query = _MATCHING.format(
        columns=SQL(COLUMNS),
        eligible=SQL(eligible),
        where=SQL(" AND ").join(where),
        order=SQL(ORDER),
    )
    return connection.execute(query, {**parameters(policy, datetime.now(UTC)), **values}).fetchall()


def _stored(row: Row) -> StoredMissing:
    return StoredMissing(*row[3:])


def _is(stored: StoredMissing, name: EventName) -> bool:
    return (stored.event_type, stored.test_id) == (name[2], name[3] or "")


def _what_is_missing(
    connection: Connection, name: EventName, found: Iterable[StoredMissing], labs: Labs
) -> str:
    lab_id, bill_id, event_type, test_id = name
    bill = f"bill {bill_id!r} of lab {lab_id!r}"
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM state.bill WHERE lab_id = %s AND bill_id = %s)",
        (lab_id, bill_id),
    ).fetchone()
    if not (row and row[0] and concerns(labs, lab_id)):
        return (
            f"nothing of {bill} is known to be missing: no readable event of it has been "
            "received, or the bill is parked"
        )
    missing = [
        f"{one.event_type}{f' of test {one.test_id!r}' if one.test_id else ''}" for one in found
    ]
    wanted = f"{event_type}{f' of test {test_id!r}' if test_id else ''}"
    there = f"missing are: {', '.join(missing)}" if missing else "nothing of it is missing"
    return f"{wanted} of {bill} is not missing; {there}"
