"""Appends deliveries to the event log; the function `ledger.append_events` does it in one call."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, TypeVar

from msgspec import Struct
from psycopg import Connection, RawCursor

from ledger.model.event import EventColumns, event_columns
from ledger.model.operator_events import decision_columns
from ledger.postgres.prepared_statement import PreparedStatement

_NOTHING = (None,) * 10
"""Parameters of `ledger.append_events`. The driver cannot write an empty array in binary."""

T = TypeVar("T")

Source = Literal["webhook", "import", "operator"]
OutcomeWord = Literal["recorded", "duplicate", "unreadable"]

_APPEND = """
SELECT at_position, recorded
FROM ledger.append_events($1, $2, $3, $4, $5, $6, $7, $8, $11, $9, $10)
"""

_NO_EVENT_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for null, which alone gives an array no type. No event has this time: see `EventTime`."""


class ErasedBody(Struct, frozen=True):
    """When (UTC) a body was erased, and the SHA-256 of its bytes."""

    erased_at: datetime
    sha256: bytes


class Delivery(Struct, frozen=True):
    """One body received at a time (UTC), with the columns of the log that its content fills.

    The body is empty if it was `erased` in the log that the delivery comes from.
    """

    body: bytes
    received_at: datetime
    source: Source
    columns: EventColumns
    erased: ErasedBody | None = None

    @classmethod
    def of(cls, body: bytes, *, received_at: datetime, source: Source) -> "Delivery":
        """Make a delivery of a body."""
        return cls(body, received_at, source, columns_of(body, source))


def columns_of(body: bytes, source: Source) -> EventColumns:
    """Return the columns that a body fills; an operator's body is read as a decision."""
    return decision_columns(body) if source == "operator" else event_columns(body)


class Outcome(Struct, frozen=True):
    """The position of a delivery's event, and whether the delivery was the event's first."""

    position: int
    recorded: bool

    def word(self, delivery: Delivery) -> OutcomeWord:
        """Return the word that the sender gets."""
        if not self.recorded:
            return "duplicate"
        return "unreadable" if delivery.columns.unreadable else "recorded"


class Spooled(Struct, frozen=True):
    """A delivery is durable on disk, and will be in the log when the database takes it."""


SPOOLED = Spooled()


def append(connection: Connection, deliveries: Sequence[Delivery]) -> list[Outcome]:
    """Append new events and note repeats in one transaction; return outcomes in the order given.

    Outside a transaction of the caller, the outcomes are durable when this returns. Raises
    `psycopg.Error`: then nothing is stored, or, if the connection broke during the commit, perhaps
    everything.
    """
    cursor = RawCursor(connection)
    cursor.execute(_APPEND, (*_parameters(deliveries), False), prepare=True, binary=True)
    return _outcomes(cursor.fetchall(), len(deliveries))


class Appender(PreparedStatement):
    """Appends as `append` does, from an event loop, on a connection of its own."""

    def __init__(self, connection: Connection) -> None:
        """Prepare the statement, which blocks. Raises `psycopg.Error`."""
        super().__init__(connection, _APPEND)
        self._count = 0

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """Begin to append. Raises `psycopg.Error`."""
        self._count = len(deliveries)
        self.send((*_parameters(deliveries), False))

    def rehearse(self, deliveries: Sequence[Delivery]) -> None:
        """Begin to prove that deliveries could be appended, without doing it; or that any could.

        `outcomes` returns an empty list then. Raises `psycopg.Error`.
        """
        self._count = 0
        self.send((*(_parameters(deliveries) if deliveries else _NOTHING), True))

    def outcomes(self) -> list[Outcome] | None:
        """Return the outcomes once all are durable, None until then. Raises what `append` does."""
        rows = self.take()
        return None if rows is None else _outcomes(rows, self._count)


def _parameters(deliveries: Sequence[Delivery]) -> tuple[list[Any] | None, ...]:
    """Return the parameters of `ledger.append_events`: one list per column."""
    columns = [delivery.columns for delivery in deliveries]
    return (
        [delivery.received_at for delivery in deliveries],
        [_event_time(each.event_time) for each in columns],
        [delivery.source for delivery in deliveries],
        [each.lab_id for each in columns],
        [each.bill_id for each in columns],
        [each.event_type for each in columns],
        [each.digest for each in columns],
        [delivery.body for delivery in deliveries],
        _optional([_erasable_sha256(delivery) for delivery in deliveries]),
        _optional([delivery.erased and delivery.erased.erased_at for delivery in deliveries]),
    )


def _optional(values: list[T | None]) -> list[T | None] | None:
    """Return values as a parameter; None if there is none, which would have no type."""
    return values if any(value is not None for value in values) else None


def _erasable_sha256(delivery: Delivery) -> bytes | None:
    """Return the SHA-256 of a body that the fold does not need; None if it stays in the log."""
    if delivery.erased:
        return delivery.erased.sha256
    if delivery.columns.is_folded or delivery.source == "operator":
        return None
    return sha256(delivery.body).digest()


def _event_time(seconds: int | None) -> datetime:
    return _NO_EVENT_TIME if seconds is None else from_unix(seconds)


def _outcomes(rows: Sequence[tuple[Any, ...]], deliveries: int) -> list[Outcome]:
    """Return the outcomes that `ledger.append_events` reported for so many deliveries."""
    if len(rows) == deliveries:  # also of a rehearsal: none
        return [Outcome(*row) for row in rows]
    first = rows[0][0]  # all are new: the others follow the first
    return [Outcome(position, recorded=True) for position in range(first, first + deliveries)]


def from_unix(seconds: int) -> datetime:
    """Return the time (UTC) of a sender's Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)
