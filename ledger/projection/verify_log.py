"""Proves that the log is complete, and that its columns, digests and erasures fit its bodies."""

from datetime import datetime
from hashlib import sha256
from typing import Any, LiteralString, NamedTuple

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Literal

from ledger.eventlog.append import Source, columns_of, from_unix
from ledger.model.operator_events import BODY_ERASED, BodyErased, read_decision
from ledger.projection.delivery_stats import DeliveryStats


class Difference(Struct, frozen=True):
    """The first thing that is not as it must be. `place` orders the findings of several jobs."""

    place: tuple[str, ...]
    words: str


class LogJob(Struct, frozen=True):
    """The positions after `after` up to and with `upto`."""

    after: int
    upto: int


Named = tuple[str, str, str]
"""An event by its lab, its bill and its digest in hexadecimal."""


class Erasures(Struct):
    """The positions of erased bodies and of the decisions to erase, each by its event."""

    decided: dict[Named, int]
    erased: dict[Named, int]

    @classmethod
    def none(cls) -> "Erasures":
        """Return those of no event."""
        return cls({}, {})

    def merge(self, other: "Erasures") -> None:
        """Add what another part of the log has."""
        self.decided.update(other.decided)
        self.erased.update(other.erased)


class Checked(Struct, frozen=True):
    """What one job did."""

    events: int
    bills: int
    difference: Difference | None
    delivery_stats: DeliveryStats | None = None
    erasures: Erasures | None = None


_LOG = """
COPY (
    SELECT
        position, lab_id, bill_id, event_type, event_time, digest, source, body,
        CASE WHEN is_erasable THEN body_sha256 END, erased_at
    FROM ledger.logged_event
    WHERE position > {} AND position <= {}
    ORDER BY position
) TO STDOUT (FORMAT binary)
"""


class _Stored(NamedTuple):
    """A row of `_LOG`. The hash is null where the body stands in the log itself."""

    position: int
    lab_id: str
    bill_id: str
    event_type: str
    event_time: datetime | None
    digest: bytes
    source: Source
    body: bytes | None
    body_sha256: bytes | None
    erased_at: datetime | None

    @property
    def named(self) -> Named:
        return self.lab_id, self.bill_id, self.digest.hex()


_LOG_TYPES = (
    *("int8", "text", "text", "text", "timestamptz", "bytea", "text"),
    *("bytea", "bytea", "timestamptz"),
)


def check_log(connection: Connection, job: LogJob) -> Checked:
    """Check that a stretch has each position once, and that columns and digests fit the bodies."""
    query = SQL(_LOG).format(Literal(job.after), Literal(job.upto))
    expected = job.after
    erasures = Erasures.none()
    with connection.cursor().copy(query) as copy:
        copy.set_types(_LOG_TYPES)
        for row in map(_Stored._make, copy.rows()):
            expected += 1
            words = None
            if row.position > expected:
                words = f"the log has a gap: position {expected} is missing"
            elif row.position < expected:
                words = f"position {row.position} stands in the log twice"
            else:
                words = _contradiction(row, erasures)
            if words:
                _drain(copy)
                return Checked(expected - job.after, 0, at(row.position, words))
    if expected < job.upto:
        words = f"the log has a gap: position {expected + 1} is missing"
        return Checked(expected - job.after, 0, at(expected + 1, words))
    return Checked(expected - job.after, 0, None, erasures=erasures)


def _contradiction(row: _Stored, erasures: Erasures) -> str | None:
    position = row.position
    if row.body is None:
        if row.erased_at is None:
            return f"the body of position {position} is missing"
        erasures.erased[row.named] = position
        return None
    found = columns_of(row.body, row.source)
    said_time = None if found.event_time is None else from_unix(found.event_time)
    if row.digest != found.digest:
        return (
            f"the digest of position {position} is {row.digest.hex()} "
            f"and its body's is {found.digest.hex()}"
        )
    if row.body_sha256 is not None and row.body_sha256 != sha256(row.body).digest():
        return f"the SHA-256 of position {position} is not that of its body"
    for column, stored, from_body in (
        ("lab_id", row.lab_id, found.lab_id),
        ("bill_id", row.bill_id, found.bill_id),
        ("event_type", row.event_type, found.event_type),
        ("event_time", row.event_time, said_time),
    ):
        if stored != from_body:
            return f"{column} of position {position} is {stored} and its body says {from_body}"
    if row.source == "operator" and row.event_type == BODY_ERASED:
        decision = read_decision(row.body)
        if isinstance(decision, BodyErased):
            named = (decision.lab_id or "", decision.bill_id or "", decision.digest)
            erasures.decided[named] = position
    return None


_KEPT = """
SELECT e.position
FROM ledger.logged_event e
WHERE e.lab_id = %s AND e.bill_id = %s AND e.digest = decode(%s, 'hex') AND e.body IS NOT NULL
"""

_STRAY = """
SELECT min(b.position)
FROM ledger.erasable_body b
WHERE NOT EXISTS (
    SELECT
    FROM ledger.event_log e
    WHERE e.lab_id = b.lab_id AND e.position = b.position AND e.body IS NULL
)
"""


def contradiction_of_erasures(connection: Connection, erasures: Erasures) -> Difference | None:
    """Check that exactly those bodies are erased whose erasure the log says was decided."""
    for named, position in erasures.erased.items():
        if named not in erasures.decided:
            words = f"the body of position {position} is erased, and no decision in the log says so"
            return at(position, words)
    for named, decision in erasures.decided.items():
        if named not in erasures.erased:
            kept = connection.execute(_KEPT, named).fetchone()
            if kept:
                words = (
                    f"position {decision} says that the body of position {kept[0]} was erased, and "
                    f"it is there: run `ledger erase {kept[0]}`"
                )
                return at(kept[0], words)
    stray = single(connection, _STRAY)
    if stray is not None:
        words = f"ledger.erasable_body has a body of position {stray}, whose place is in the log"
        return at(stray, words)
    return None


def at(position: int, words: str) -> Difference:
    """Return the difference at a position of the log."""
    return Difference((f"{position:020}",), words)


def _drain(copy: Any) -> None:  # noqa: ANN401 -- psycopg's Copy; leaving it half read is an error
    for _ in copy:
        pass


def single(connection: Connection, query: LiteralString, *values: object) -> Any:  # noqa: ANN401 -- whatever the query gives
    """Return the only column of the only row."""
    row = connection.execute(query, values or None).fetchone()
    assert row  # noqa: S101 -- the queries above give one row
    return row[0]
