"""Imports events from files into the log, and exports the log to JSON Lines.

A line of an export holds what the log holds, so that importing it gives an equal log:
`{"position", "received_at", "source", "body"}`, or `raw` (base64) instead of `body` where the bytes
would not survive as JSON in a line, or `erased` where the body was erased. Records of liveness
follow, see `liveness_transfer`. Any other value is a payload of Flabs, as support sends it.
"""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, NamedTuple, Protocol

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg import Connection
from psycopg.sql import SQL, Composable, Literal

from ledger.errors import ForbiddenError, ImportFileError, UnknownSubjectError
from ledger.eventlog import erased_events, read
from ledger.eventlog.append import Delivery, Outcome, Source, append
from ledger.eventlog.erase import carry_out
from ledger.eventlog.erased_events import (
    ErasedColumns,
    ErasedEvent,
    erased_event,
    is_restorable,
)
from ledger.eventlog.json_values import Value
from ledger.eventlog.liveness_transfer import LivenessRecord, read_record, store_records
from ledger.model.digest import is_json
from ledger.model.event import read_event
from ledger.model.operator_events import BODY_ERASED, is_storable
from ledger.model.operators import Operator
from ledger.model.unreadable import Unreadable

BATCH = 500
BATCH_BYTES = 8 * 1024 * 1024


class ExportLine(Struct, frozen=True, forbid_unknown_fields=True):
    """One event of an export."""

    position: int
    received_at: Annotated[datetime, Meta(tz=True)]
    source: Source
    body: msgspec.Raw | UnsetType = UNSET
    raw: str | UnsetType = UNSET
    erased: ErasedEvent | UnsetType = UNSET


class UnreadableLine(Struct, frozen=True):
    """A value of a file that is no webhook; `number` is its line or its place in an array."""

    number: int
    unreadable: Unreadable


class Imported(Struct):
    """What became of a file's values.

    `unreadable` counts the values that are no webhook, `unreadable_recorded` those of them that
    were recorded all the same; `unreadable_lines` are the first hundred. `ranges` are the
    positions, first and last, of the file's events, old and new; `keys` their bills, None if they
    are too many to remember. `complete` is false if the file ends inside a value or an array.
    `import_id` is None if no event was recorded. `liveness_records` counts the records of liveness
    that said something new.
    """

    recorded: int = 0
    duplicate: int = 0
    unreadable: int = 0
    unreadable_recorded: int = 0
    unreadable_lines: list[UnreadableLine] = []
    ranges: list[tuple[int, int]] = []
    keys: set[tuple[str, str]] | None = set()
    complete: bool = True
    import_id: int | None = None
    liveness_records: int = 0

    def add(self, delivery: Delivery, outcome: Outcome, number: int) -> None:
        """Count an event that is in the log now."""
        columns = delivery.columns
        if not outcome.recorded:
            self.duplicate += 1
        elif columns.unreadable:
            self.add_unreadable(number, columns.unreadable)
            self.unreadable_recorded += 1
        else:
            self.recorded += 1
        self.ranges = _extended(self.ranges, outcome.position)
        if len(self.ranges) > _RANGES_APART:
            self.ranges = _merged(self.ranges)
        if self.keys is not None and columns.bill_id:
            self.keys.add((columns.lab_id, columns.bill_id))
            if len(self.keys) > _KEYS_REMEMBERED:
                self.keys = None

    def add_unreadable(self, number: int, value: bytes | Unreadable) -> None:
        """Count a value that is no webhook. The reason is found out for the first hundred only."""
        self.unreadable += 1
        if len(self.unreadable_lines) < _UNREADABLE_SHOWN:
            why = value if isinstance(value, Unreadable) else read_event(value)
            assert isinstance(why, Unreadable)  # noqa: S101 -- so the caller found
            self.unreadable_lines.append(UnreadableLine(number, why))


class Entry(NamedTuple):
    """A value of a file: a delivery, the bytes of one that is left out of the log, or a record."""

    number: int
    value: Delivery | LivenessRecord | bytes

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        if isinstance(self.value, Delivery):
            return len(self.value.body)
        return len(self.value) if isinstance(self.value, bytes) else 0


class ReadValues(Protocol):
    """The values of a file."""

    @property
    def cut_off(self) -> bool:
        """Whether the file ends inside a value or an array."""

    def values(self) -> Iterator[Value]:
        """Yield the values."""


class ImportSource(Protocol):
    """What can be imported: a file of values, or an archive."""

    @property
    def name(self) -> str | None:
        """How it is called; None if it has no name."""

    def read(self, is_wanted: Callable[[bytes], bool], /) -> ReadValues:
        """Look through the whole source. Raises `LedgerError` if it is not accepted."""


class Options(Struct, frozen=True, kw_only=True):
    """How to import a file.

    `exports`: lines of an export are restored with the time and the source that they name, as
    befits a file of our own; else their bodies are imported as payloads. `keep_unreadable`: values
    that are no webhook are recorded as well. A file with events of labs that `by` may not decide
    for is refused as a whole.
    """

    by: Operator
    exports: bool = False
    keep_unreadable: bool = False


_LINE = msgspec.json.Decoder(ExportLine)
_EXPORT_MARK = b'"position"'
_SPACE = b" \t\r\n"
_LAB_FIELD = b'"labID"'
_UNREADABLE_SHOWN = 100
_KEYS_REMEMBERED = 10_000
_RANGES_APART = 100_000


def import_events(
    connection: Connection,
    file: ImportSource,
    options: Options,
    *,
    on_progress: Callable[[int], None],
) -> Imported:
    """Append the events of a file, a batch at a time; what is in the log already is a duplicate.

    The file is read as a whole first. An interrupted import is simply repeated. Calls `on_progress`
    with the number of the last value appended. Raises `ImportFileError` for a file that is not
    accepted, before anything is appended; and if it cannot be read a second time. Raises
    `ForbiddenError` for a file with events of other labs than the operator's.
    """
    reading = file.read(_holds_event)
    _check_labs(reading, options)
    imported = _nothing_yet(reading)
    run = _Run(connection, file, options)
    try:
        for batch in _batches(reading, options):
            deliveries = [entry.value for entry in batch if isinstance(entry.value, Delivery)]
            # In one transaction, so that no event is without its import.
            with connection.transaction():
                outcomes = iter(append(connection, deliveries) if deliveries else ())
                erasures: list[int] = []
                recorded: list[tuple[int, int]] = []
                for number, value in batch:
                    if isinstance(value, bytes):
                        imported.add_unreadable(number, value)
                    elif isinstance(value, Delivery):
                        outcome = next(outcomes)
                        imported.add(value, outcome, number)
                        if outcome.recorded:
                            recorded = _extended(recorded, outcome.position)
                            if value.columns.event_type == BODY_ERASED:
                                erasures.append(outcome.position)
                carry_out(connection, erasures)
                imported.liveness_records += store_records(connection, _records(batch))
                run.save(imported, recorded)
            on_progress(batch[-1].number)
    except ImportFileError as error:
        raise ImportFileError(
            f"{error}. What comes before that was imported: recorded {imported.recorded}, "
            f"duplicate {imported.duplicate}, unreadable {imported.unreadable}. Import the file "
            "again when it is whole"
        ) from error
    return imported


def preview_import(connection: Connection, file: ImportSource, options: Options) -> Imported:
    """Return what an import would count, without a change that lasts."""
    reading = file.read(_holds_event)
    _check_labs(reading, options)
    imported = _nothing_yet(reading)
    read.keep_to_indexes(connection)
    connection.execute(_PREVIEW_TABLE)
    for batch in _batches(reading, options):
        new = _digests_of_new(connection, batch)
        with connection.transaction(force_rollback=True):
            imported.liveness_records += store_records(connection, _records(batch))
        for number, value in batch:
            if isinstance(value, bytes):
                imported.add_unreadable(number, value)
            elif not isinstance(value, Delivery):
                continue
            elif value.columns.digest not in new:
                imported.duplicate += 1
            else:
                new.remove(value.columns.digest)
                if value.columns.unreadable:
                    imported.add_unreadable(number, value.columns.unreadable)
                    imported.unreadable_recorded += 1
                else:
                    imported.recorded += 1
    return imported


def export_lines(
    connection: Connection,
    *,
    after: int = 0,
    upto: int | None = None,
    lab_id: str | None = None,
    bill_id: str | None = None,
    import_id: int | None = None,
) -> Iterator[bytes]:
    """Yield the log, or a part of it, as lines in order of position.

    Raises `UnknownSubjectError` for an import that does not exist.
    """
    if import_id is not None:
        for first, last in _positions_of_import(connection, import_id):
            begin, end = max(after, first - 1), last if upto is None else min(upto, last)
            yield from export_lines(
                connection, after=begin, upto=end, lab_id=lab_id, bill_id=bill_id
            )
        return
    conditions: list[Composable] = [SQL("position > {}").format(Literal(after))]
    for condition, value in (
        (SQL("position <= {}"), upto),
        (SQL("lab_id = {}"), lab_id),
        (SQL("bill_id = {}"), bill_id),
    ):
        if value is not None:
            conditions.append(condition.format(Literal(value)))
    query = SQL(
        "COPY (SELECT position, received_at, source, body, {} FROM ledger.logged_event"
        " WHERE {} ORDER BY position) TO STDOUT (FORMAT binary)"
    ).format(SQL(erased_events.COLUMNS), SQL(" AND ").join(conditions))
    with connection.cursor().copy(query) as copy:
        copy.set_types(("int8", "timestamptz", "text", "bytea", *erased_events.TYPES))
        for position, received_at, source, body, *erased in copy.rows():
            moment = received_at.astimezone(UTC)
            what = body if body is not None else erased_event(ErasedColumns(*erased))
            yield export_line(position, moment, source, what)


def _check_labs(reading: ReadValues, options: Options) -> None:
    labs = options.by.labs
    if labs is None:
        return
    for batch in _batches(reading, options):
        for number, value in batch:
            if isinstance(value, Delivery) and value.columns.lab_id not in labs:
                named = value.columns.lab_id
                whose = f"is of lab {named!r}, which" if named else "names no lab, and"
                raise ForbiddenError(
                    f"the event in line {number} {whose} the API key {options.by.key} is not for"
                    f"{'' if named else ' such'}: it is for {', '.join(labs)}. Nothing was imported"
                )


def export_line(
    position: int, received_at: datetime, source: Source, body: bytes | ErasedEvent
) -> bytes:
    """Return the line of an event, with its line end; `received_at` in UTC."""
    if isinstance(body, ErasedEvent):
        return msgspec.json.encode(ExportLine(position, received_at, source, erased=body)) + b"\n"
    fits_a_line = body == body.strip() and b"\n" not in body and b"\r" not in body
    if fits_a_line and is_json(body):
        line = msgspec.json.encode(
            ExportLine(position, received_at, source, body=msgspec.Raw(body))
        )
        try:
            _LINE.decode(line)
        except msgspec.MsgspecError:
            pass  # JSON that msgspec does not read, such as half a surrogate pair
        else:
            return line + b"\n"
    raw = base64.b64encode(body).decode()
    return msgspec.json.encode(ExportLine(position, received_at, source, raw=raw)) + b"\n"


def _positions_of_import(connection: Connection, import_id: int) -> list[tuple[int, int]]:
    rows = connection.execute(_POSITIONS_OF_IMPORT, (import_id,)).fetchall()
    if not rows:
        raise UnknownSubjectError(f"there is no import {import_id}")
    return rows


def _nothing_yet(reading: ReadValues) -> Imported:
    return Imported(unreadable_lines=[], ranges=[], keys=set(), complete=not reading.cut_off)


class _Run:
    """The row of `ledger.import_run` of an import; there is none until something was recorded."""

    def __init__(self, connection: Connection, file: ImportSource, options: Options) -> None:
        self._connection = connection
        self._name = file.name
        self._by = options.by
        self._began = datetime.now(UTC)

    def save(self, imported: Imported, recorded: list[tuple[int, int]]) -> None:
        """Save the counts so far and add the positions that were recorded, first and last."""
        counts = (imported.recorded, imported.duplicate, imported.unreadable)
        positions = f"{{{','.join(f'[{first},{last}]' for first, last in recorded)}}}"
        if imported.import_id is not None:
            self._connection.execute(_UPDATE_RUN, (*counts, positions, imported.import_id))
        elif recorded:
            values = (self._began, self._by.name, self._by.key, self._name, *counts, positions)
            row = self._connection.execute(_INSERT_RUN, values).fetchone()
            assert row  # noqa: S101 -- as RETURNING promises
            imported.import_id = row[0]


_INSERT_RUN = """
INSERT INTO ledger.import_run
    (
        imported_at, imported_by, imported_by_key, name, recorded, duplicate, unreadable, positions
    )
VALUES (%s, %s, %s, %s, %s, %s, %s, %s::int8multirange)
RETURNING import_id
"""

_UPDATE_RUN = """
UPDATE ledger.import_run
SET recorded = %s, duplicate = %s, unreadable = %s, positions = positions + %s::int8multirange
WHERE import_id = %s
"""

_POSITIONS_OF_IMPORT = """
SELECT lower(r.positions), upper(r.positions) - 1
FROM ledger.import_run i
CROSS JOIN LATERAL unnest(i.positions) AS r (positions)
WHERE i.import_id = %s
ORDER BY 1
"""

_PREVIEW_TABLE = """
DROP TABLE IF EXISTS pg_temp.import_preview;
CREATE TEMPORARY TABLE import_preview (
    lab_id text COLLATE "C",
    bill_id text COLLATE "C",
    digest bytea,
    PRIMARY KEY (lab_id, bill_id, digest)
)
"""

_PREVIEW = """
INSERT INTO pg_temp.import_preview (lab_id, bill_id, digest)
SELECT f.lab_id, f.bill_id, f.digest
FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS f (lab_id, bill_id, digest)
WHERE NOT ledger.is_logged(f.lab_id, f.bill_id, f.digest)
ON CONFLICT DO NOTHING
RETURNING digest
"""


def _digests_of_new(connection: Connection, batch: list[Entry]) -> set[bytes]:
    """Return the digests that are neither in the log nor in an earlier batch."""
    said = [entry.value.columns for entry in batch if isinstance(entry.value, Delivery)]
    parameters = (
        [columns.lab_id for columns in said],
        [columns.bill_id for columns in said],
        [columns.digest for columns in said],
    )
    return {digest for (digest,) in connection.execute(_PREVIEW, parameters)}


def _batches(reading: ReadValues, options: Options) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for number, text in reading.values():
        for value in _events(text, options):
            batch.append(Entry(number, value))
            size += batch[-1].size
            if len(batch) == BATCH or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _records(batch: list[Entry]) -> list[LivenessRecord]:
    return [value for _, value in batch if isinstance(value, LivenessRecord)]


def _extended(ranges: list[tuple[int, int]], position: int) -> list[tuple[int, int]]:
    if ranges and ranges[-1][1] == position - 1:
        ranges[-1] = (ranges[-1][0], position)
    else:
        ranges.append((position, position))
    return ranges


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch, as those of a file taken in again in another order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _events(text: bytes, options: Options) -> Iterator[Delivery | LivenessRecord | bytes]:
    """Yield the events of a value as deliveries, what is to be left out of the log as bytes.

    Records of liveness are restored from an export of our own, and otherwise skipped.
    """
    if record := read_record(text):
        if options.exports:
            yield record
        return
    line = _export_line(text)
    if line and options.exports:
        yield _restored(line)
        return
    if line and isinstance(line.erased, ErasedEvent):
        return  # nothing is left of it to be imported as a payload
    text = _body(line) if line else text
    if _is_webhook(text):
        yield _payload(text)
    elif inner := _payloads_inside(text):
        for body in inner:
            is_kept = options.keep_unreadable or _is_webhook(body)
            yield _payload(body) if is_kept else body
    else:
        yield _payload(text) if options.keep_unreadable else text


def _holds_event(text: bytes) -> bool:
    """Return whether a value is a webhook or a line of an export, or holds one."""
    return (
        _is_webhook(text)
        or _export_line(text) is not None
        or read_record(text) is not None
        or bool(_payloads_inside(text))
    )


def _is_webhook(text: bytes) -> bool:
    # Most values that are none are found out here; to read one as an event takes far longer.
    if not text.lstrip(_SPACE).startswith(b"{") or (_LAB_FIELD not in text and b"\\" not in text):
        return False
    return not isinstance(read_event(text), Unreadable)


def _payloads_inside(text: bytes) -> list[bytes]:
    """Return what a wrapper of payloads holds; nothing if a value is no such wrapper.

    Payloads come as JSON in a string, and as the only array of an object.
    """
    try:
        if text.startswith(b'"'):
            inside = [msgspec.json.decode(text, type=str).encode()]
        elif text.startswith(b"{"):
            members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            arrays = [raw for raw in map(bytes, members.values()) if raw.startswith(b"[")]
            if len(arrays) != 1 or not _PAYLOAD_FIELDS.isdisjoint(members):
                return []
            elements = msgspec.json.decode(arrays[0], type=list[msgspec.Raw])
            if len(elements) > _MOST_INSIDE:
                return []
            inside = [found for raw in elements for found in _from_string(bytes(raw))]
        else:
            return []
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return []
    return inside if any(map(_is_webhook, inside[:_TRIED])) else []


def _from_string(text: bytes) -> list[bytes]:
    return (text.startswith(b'"') and _payloads_inside(text)) or [text]


_MOST_INSIDE = 50_000  # elements; a hostile object of one value's size holds millions
_TRIED = 100
_PAYLOAD_FIELDS = frozenset({"labID", "eventType", "eventTime"})


def _payload(body: bytes) -> Delivery:
    return Delivery.of(body, received_at=datetime.now(UTC), source="import")


def _export_line(text: bytes) -> ExportLine | None:
    """Return the line of an export that a value is; None if it is none that can be restored."""
    if _EXPORT_MARK not in text:
        return None
    try:
        line = _LINE.decode(text)
        _body(line)
    except (msgspec.MsgspecError, ValueError):
        return None
    if isinstance(line.erased, ErasedEvent) and not is_restorable(line.erased, line.source):
        return None
    return line if is_storable(line.received_at) else None


def _body(line: ExportLine) -> bytes:
    """Return the body of a line of an export. Raises `ValueError` if it is not base64."""
    if not isinstance(line.raw, UnsetType):
        return base64.b64decode(line.raw, validate=True)
    return b"" if isinstance(line.body, UnsetType) else bytes(line.body)


def _restored(line: ExportLine) -> Delivery:
    if isinstance(line.erased, ErasedEvent):
        return erased_events.restored(line.erased, line.received_at, line.source)
    return Delivery.of(_body(line), received_at=line.received_at, source=line.source)
