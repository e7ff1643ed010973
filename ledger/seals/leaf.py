"""The leaf of an event: the one definition of what a seal says of it.

The body enters by its SHA-256 alone, so that the seal still verifies when a body was erased.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.seals.merkle import leaf_hash

_LOG = "ledger.logged_event"
_BODY_SHA256 = "coalesce(sha256(body), body_sha256)"  # what stands is hashed, not believed

# By COPY a timestamptz is read as the int8 that it is in the binary format, microseconds since
# 2000: exact, and whatever a changed row says.
_LEAVES = SQL(f"""
COPY (
    SELECT
        position, received_at, event_time, source, lab_id, bill_id, event_type, digest,
        {_BODY_SHA256}
    FROM {_LOG}
    WHERE position > {{after}} AND position <= {{upto}}
    ORDER BY position
    LIMIT {{limit}}
) TO STDOUT (FORMAT binary)
""")  # noqa: S608 -- our own names
_TYPES = ("int8", "int8", "int8", "text", "text", "text", "text", "bytea", "bytea")
TIMES_BEGIN = 946_684_800_000_000
"""2000-01-01 in microseconds since 1970."""

LEAF = SQL(f"""
SELECT
    position,
    (extract(epoch FROM received_at) * 1000000)::bigint,
    (extract(epoch FROM event_time) * 1000000)::bigint,
    source, lab_id, bill_id, event_type, digest,
    {_BODY_SHA256},
    body,
    is_erasable
FROM {_LOG}
WHERE position = %s AND (%s::text[] IS NULL OR lab_id = ANY(%s::text[]))
""")  # noqa: S608 -- our own names
"""The row of an event of some labs, or of all: what `Leaf.of_row` takes, the body, and
whether it is one that may be erased."""


class Leaf(Struct, frozen=True):
    """What is sealed of an event, in the order in which it is written.

    Times are microseconds since 1970 (UTC), hashes are hexadecimal. `digest` identifies the JSON
    value of the body; `body_sha256` is of the bytes exactly as they were received.
    """

    position: int
    received_at_us: int
    event_time_us: int | None
    source: str
    lab_id: str
    bill_id: str
    event_type: str
    digest: str
    body_sha256: str

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> "Leaf":
        """Return the leaf of a row with these columns, whose hashes are bytes.

        A hash is '' where somebody removed it, which no sealed leaf has.
        """
        position, received_at, event_time, source, lab_id, bill_id, event_type, *hashes = row[:9]
        digest, body_sha256 = ("" if each is None else each.hex() for each in hashes)
        return cls(
            position,
            received_at,
            event_time,
            source,
            lab_id,
            bill_id,
            event_type,
            digest,
            body_sha256,
        )

    def to_bytes(self) -> bytes:
        """Return the leaf's bytes: a JSON object in UTF-8 without white space."""
        return _encode(self)


class SealedRow(NamedTuple):
    """A row of the log: its position, its leaf's bytes and their hash."""

    position: int
    leaf: bytes
    hash: bytes


_encode = msgspec.json.Encoder().encode


def read_leaves(connection: Connection, after: int, upto: int, limit: int) -> Iterator[SealedRow]:
    """Yield the rows after a position in order, at most `limit`; take all of them."""
    query = _LEAVES.format(after=after, upto=upto, limit=limit)
    with connection.cursor().copy(query) as copy:
        copy.set_types(_TYPES)
        for position, received_at, event_time, *rest in copy.rows():
            times = (
                received_at + TIMES_BEGIN,
                None if event_time is None else event_time + TIMES_BEGIN,
            )
            leaf = Leaf.of_row((position, *times, *rest)).to_bytes()
            yield SealedRow(position, leaf, leaf_hash(leaf))
