"""Appends deliveries to the event log; `append_events` in the database does the rest."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from psycopg import Connection, RawCursor

from ledger.model.event import EventColumns, event_columns
from ledger.model.operator_events import decision_columns
from ledger.postgres.binary import (
    PackedArray,
    bytea_array,
    char_array,
    int8_array,
    text_array,
    timestamptz_array,
)
from ledger.postgres.prepared_statement import PreparedStatement

Source = Literal["webhook", "import", "operator"]
OutcomeWord = Literal["recorded", "duplicate", "unreadable"]

_LETTERS: dict[Source, bytes] = {"webhook": b"w", "import": b"i", "operator": b"o"}

_APPEND = "SELECT at_position, recorded FROM append_events($1, $2, $3, $4, $5, $6, $7, $8)"


class Delivery(Struct, frozen=True):
    """One body that was received at a time (UTC), with what it says of itself."""

    body: bytes
    received_at: datetime
    source: Source
    examined: EventColumns

    @classmethod
    def of(cls, body: bytes, *, received_at: datetime, source: Source) -> "Delivery":
        """Make a delivery of a body."""
        return cls(body, received_at, source, examine_row(body, source))


def examine_row(body: bytes, source: Source) -> EventColumns:
    """Work out what the log's columns hold of a body; what an operator wrote is read as such."""
    return decision_columns(body) if source == "operator" else event_columns(body)


class Outcome(Struct, frozen=True):
    """What became of a delivery: its event's position, and whether it is the event's first."""

    position: int
    recorded: bool

    def word(self, delivery: Delivery) -> OutcomeWord:
        """Return what the sender is told."""
        if not self.recorded:
            return "duplicate"
        return "unreadable" if delivery.examined.unreadable else "recorded"


def append(connection: Connection, deliveries: Sequence[Delivery]) -> list[Outcome]:
    """Append what is new and note what is not, in one transaction; answer in the order given.

    `connection` is in autocommit mode: when this returns, the outcomes are durable. Raises
    `psycopg.Error`; nothing of the call is stored then, or all of it, if the connection was lost
    while it committed.
    """
    cursor = RawCursor(connection)
    cursor.execute(_APPEND, _parameters(deliveries), prepare=True, binary=True)
    return _outcomes(cursor.fetchall(), len(deliveries))


class Appender(PreparedStatement):
    """Appends from an event loop, on a connection that it has for itself, as `append` does."""

    def __init__(self, connection: Connection) -> None:
        """Prepare the statement, which blocks. Raises `psycopg.Error`."""
        super().__init__(connection, _APPEND)
        self._count = 0

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """Begin to append. Raises `psycopg.Error`."""
        self._count = len(deliveries)
        self.send(_parameters(deliveries))

    def outcomes(self) -> list[Outcome] | None:
        """Return the outcomes if all is durable, None if not yet. Raises what `append` does."""
        rows = self.take()
        if rows is None:
            return None
        value = rows.get_value
        answer = [
            (int.from_bytes(value(row, 0) or b"", "big"), value(row, 1) == b"\x01")
            for row in range(rows.ntuples)
        ]
        return _outcomes(answer, self._count)


def _parameters(deliveries: Sequence[Delivery]) -> tuple[PackedArray, ...]:
    """Return the parameters of `append_events`."""
    examined = [delivery.examined for delivery in deliveries]
    return (
        timestamptz_array([delivery.received_at for delivery in deliveries]),
        int8_array([said.event_time for said in examined]),
        char_array([_LETTERS[delivery.source] for delivery in deliveries]),
        text_array([said.lab_id for said in examined]),
        text_array([said.bill_id for said in examined]),
        text_array([said.event_type for said in examined]),
        bytea_array([said.digest for said in examined]),
        bytea_array([delivery.body for delivery in deliveries]),
    )


def _outcomes(answer: Sequence[tuple[int, bool]], deliveries: int) -> list[Outcome]:
    """Make the outcomes of so many deliveries of what `append_events` answered."""
    if len(answer) == deliveries:
        return [Outcome(*row) for row in answer]
    first = answer[0][0]  # all are new, so that it stands for all
    return [Outcome(position, recorded=True) for position in range(first, first + deliveries)]


def from_unix(seconds: int) -> datetime:
    """Return the time (UTC) that a sender's seconds mean."""
    return datetime.fromtimestamp(seconds, UTC)
