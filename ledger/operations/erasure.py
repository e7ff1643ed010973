"""Erases the bodies of events that the fold does not need.

The decision, an event of the log, is appended in the transaction that empties the body.
"""

from datetime import UTC, datetime

import psycopg
from msgspec import Struct
from psycopg import Connection

from ledger.errors import DecisionError, QuestionError, UnknownSubjectError
from ledger.eventlog.append import Source, columns_of
from ledger.eventlog.erase import carry_out
from ledger.eventlog.read import head
from ledger.model.operator_events import BodyErased
from ledger.model.operators import Operator, as_array
from ledger.operations.decisions import LOCK_SECONDS, deciding_without_state, record
from ledger.postgres.cluster import is_distributed
from ledger.projection import store
from ledger.projection.projector import lock_projection


class Erasure(Struct, frozen=True, kw_only=True):
    """An event whose body was erased, or would be, with the log's columns that stay.

    `erased_at` is the time of the decision, in UTC, and `decision` its position in the log; both
    are null if nothing was done.
    """

    position: int
    lab_id: str
    bill_id: str
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    bytes: int
    body_sha256: str
    erased_at: datetime | None
    decision: int | None
    dry_run: bool


_FOUND = """
SELECT
    e.lab_id, e.bill_id, e.event_type, e.event_time, e.received_at, e.source, e.digest, e.body,
    e.body_sha256, e.is_erasable, e.erased_at
FROM ledger.logged_event e
WHERE e.position = %s AND (%s::text[] IS NULL OR e.lab_id = ANY (%s::text[]))
"""


class _Found(Struct, frozen=True):
    lab_id: str
    bill_id: str
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    digest: bytes
    body: bytes | None
    body_sha256: bytes
    is_erasable: bool
    erased_at: datetime | None


def erase(
    url: str, position: int, *, reason: str, by: Operator, dry_run: bool
) -> tuple[Erasure, int]:
    """Erase the body of the event at a position; return what it was, and the log's position.

    Raises `UnknownSubjectError` if there is no such event, `QuestionError` if its body cannot be
    erased, `DecisionError` if that cannot be decided now.
    """
    with deciding_without_state(url) as connection:
        if is_distributed(connection):
            raise QuestionError("no body of a log that is distributed by Citus can be erased yet")
        found = _found(connection, position, by)
        body = _erasable(position, found)
        now = datetime.now(UTC)
        decision = None
        if not dry_run:
            words = BodyErased(
                at=now,
                by=by.name,
                by_key=by.key,
                position=position,
                lab_id=found.lab_id or None,
                bill_id=found.bill_id or None,
                event_type=found.event_type,
                digest=found.digest.hex(),
                body_sha256=found.body_sha256.hex(),
                reason=reason,
            )
            decision = _carry_out(connection, position, words)
        made = Erasure(
            position=position,
            lab_id=found.lab_id,
            bill_id=found.bill_id,
            event_type=found.event_type,
            event_time=found.event_time and found.event_time.astimezone(UTC),
            received_at=found.received_at.astimezone(UTC),
            source=found.source,
            bytes=len(body),
            body_sha256=found.body_sha256.hex(),
            erased_at=None if decision is None else now,
            decision=decision,
            dry_run=dry_run,
        )
        return made, decision or head(connection)


def _found(connection: Connection, position: int, by: Operator) -> _Found:
    labs = as_array(by.labs)
    row = connection.execute(_FOUND, (position, labs, labs)).fetchone()
    if row is None:
        raise UnknownSubjectError(f"there is no event at position {position}")
    return _Found(*row)


def _erasable(position: int, found: _Found) -> bytes:
    """Return the body. Raises `QuestionError` if it cannot be erased."""
    if found.source == "operator":
        raise QuestionError(
            f"position {position} is an operator's decision, {found.event_type}: decisions are "
            "not erased"
        )
    if found.body is None:
        raise QuestionError(
            f"the body of position {position} was erased already, at {found.erased_at:%F %T} UTC"
        )
    if not found.is_erasable or columns_of(found.body, found.source).is_folded:
        raise QuestionError(
            f"position {position} is a readable {found.event_type}: the state is made of it, so "
            "it cannot be erased"
        )
    return found.body


def _carry_out(connection: Connection, position: int, decision: BodyErased) -> int:
    """Append the decision and erase, in one transaction; return the decision's position."""
    try:
        with connection.transaction():
            # A projector that read the body before writes what it says of it before, too.
            lock_projection(connection)
            if store.schema_exists(connection, store.LIVE):
                store.forget_erased(connection, store.LIVE, [decision])
            at = record(connection, [decision])
            if carry_out(connection, [at]) != [position]:
                raise DecisionError(f"the body of position {position} could not be erased")
    except psycopg.errors.LockNotAvailable:
        raise DecisionError(
            f"the state was not free for {LOCK_SECONDS} s. Nothing was erased; try again"
        ) from None
    return at
