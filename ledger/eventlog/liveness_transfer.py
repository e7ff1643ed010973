"""Carries in exports what loss windows are computed from: when receivers were alive or refused.

A record is a line of its own: `{"instance", "alive_from", "alive_until"}`, or `{"instance",
"number", "refused_from", "refused_until", "deliveries"}`.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from psycopg import Connection

from ledger.model.operator_events import is_storable

Time = Annotated[datetime, Meta(tz=True)]


class AliveRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of `ledger.liveness`."""

    instance: UUID
    alive_from: Time
    alive_until: Time


class RefusalRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of `ledger.refusal`."""

    instance: UUID
    number: Annotated[int, Meta(ge=1, lt=2**31)]
    refused_from: Time
    refused_until: Time
    deliveries: Annotated[int, Meta(ge=0, le=2**62)]


LivenessRecord = AliveRecord | RefusalRecord


def export_records(connection: Connection) -> Iterator[bytes]:
    """Yield all records as lines."""
    for instance, *times in connection.execute(_ALL_ALIVE):
        begin, end = (time.astimezone(UTC) for time in times)
        yield msgspec.json.encode(AliveRecord(instance, begin, end)) + b"\n"
    for instance, number, *times, deliveries in connection.execute(_ALL_REFUSALS):
        begin, end = (time.astimezone(UTC) for time in times)
        yield msgspec.json.encode(RefusalRecord(instance, number, begin, end, deliveries)) + b"\n"


def read_record(text: bytes) -> LivenessRecord | None:
    """Return the record that a line of an export is; None for any other value."""
    if _MARK not in text:
        return None
    for decoder in _DECODERS:
        try:
            record = decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue
        begin, end = _span(record)
        latest = datetime.now(UTC) + _CLOCKS_APART
        is_plausible = is_storable(begin) and is_storable(end) and begin <= end <= latest
        return record if is_plausible else None
    return None


def store_records(connection: Connection, records: Iterable[LivenessRecord]) -> int:
    """Store records; return how many say something that was not known. Raises `psycopg.Error`."""
    alive: dict[UUID, dict[datetime, AliveRecord]] = {}
    refusals: dict[tuple[UUID, int], RefusalRecord] = {}
    for record in sorted(records, key=_span):  # of one key, the last says the most
        if isinstance(record, AliveRecord):
            alive.setdefault(record.instance, {})[record.alive_from] = record
        else:
            refusals[record.instance, record.number] = record
    spans = [msgspec.structs.astuple(one) for each in alive.values() for one in each.values()]
    stored = connection.execute(_STORE_ALIVE, _columns(spans)).rowcount if spans else 0
    refused = [msgspec.structs.astuple(one) for one in refusals.values()]
    return stored + (
        connection.execute(_STORE_REFUSALS, _columns(refused)).rowcount if refused else 0
    )


def _span(record: LivenessRecord) -> tuple[datetime, datetime]:
    if isinstance(record, AliveRecord):
        return record.alive_from, record.alive_until
    return record.refused_from, record.refused_until


def _columns(rows: list[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


_CLOCKS_APART = timedelta(days=1)
_MARK = b'"instance"'
_DECODERS = (msgspec.json.Decoder(AliveRecord), msgspec.json.Decoder(RefusalRecord))

_ALL_ALIVE = """
SELECT instance, alive_from, alive_until
FROM ledger.liveness
ORDER BY alive_from, instance
"""

_ALL_REFUSALS = """
SELECT instance, number, refused_from, refused_until, deliveries
FROM ledger.refusal
ORDER BY refused_from, instance, number
"""

_STORE_ALIVE = """
INSERT INTO ledger.liveness AS l (instance, alive_from, alive_until)
SELECT *
FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[])
ON CONFLICT (instance, alive_from) DO UPDATE SET alive_until = excluded.alive_until
WHERE l.alive_until < excluded.alive_until
"""

_STORE_REFUSALS = """
INSERT INTO ledger.refusal AS r (instance, number, refused_from, refused_until, deliveries)
SELECT *
FROM unnest(%s::uuid[], %s::int[], %s::timestamptz[], %s::timestamptz[], %s::bigint[])
ON CONFLICT (instance, number) DO UPDATE SET
    refused_from = least(r.refused_from, excluded.refused_from),
    refused_until = greatest(r.refused_until, excluded.refused_until),
    deliveries = greatest(r.deliveries, excluded.deliveries)
WHERE
    excluded.refused_from < r.refused_from
    OR excluded.refused_until > r.refused_until
    OR excluded.deliveries > r.deliveries
"""
