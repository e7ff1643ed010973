"""Events in files: JSON Lines out of the log, and JSON Lines or a JSON array into it.

A line of an export holds what the log holds, so that importing it gives an equal log:
`{"position", "received_at", "source", "body"}`, or `raw` (base64) in the place of `body` where the
bytes would not come through as JSON in a line. A line of any other shape is a payload of Flabs, as
support sends it; so is an element of an array, whose number is given in the place of a line's.
"""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import IO, Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg import Connection
from psycopg.sql import SQL, Composable, Literal

from ledger.errors import ImportFileError
from ledger.eventlog.append import Delivery, Outcome, Source, append
from ledger.eventlog.import_files import BROKEN_GZIP, CutOffError, numbered
from ledger.model.digest import is_json
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


class UnreadableLine(Struct, frozen=True):
    """A line that was kept as an event that cannot be read."""

    number: int
    unreadable: Unreadable


class Imported(Struct):
    """What became of a file's lines.

    `unreadable_lines` are the first hundred of them. `ranges` are the positions, first and last,
    of its events, old and new; `keys` their bills, unless they are too many to remember.
    """

    recorded: int = 0
    duplicate: int = 0
    unreadable: int = 0
    unreadable_lines: list[UnreadableLine] = []
    ranges: list[tuple[int, int]] = []
    keys: set[tuple[str, str]] | None = set()
    complete: bool = True
    """Whether the file ended where it should; a JSON array can be cut off."""

    def add(self, number: int, delivery: Delivery, outcome: Outcome) -> None:
        """Count a line."""
        word = outcome.word(delivery)
        setattr(self, word, getattr(self, word) + 1)
        unreadable = delivery.examined.unreadable
        if unreadable and len(self.unreadable_lines) < _UNREADABLE_SHOWN:
            self.unreadable_lines.append(UnreadableLine(number, unreadable))
        position = outcome.position
        if self.ranges and self.ranges[-1][1] == position - 1:
            self.ranges[-1] = (self.ranges[-1][0], position)
        else:
            self.ranges.append((position, position))
            if len(self.ranges) > _RANGES_APART:
                self.ranges = _merged(self.ranges)
        if self.keys is not None and delivery.examined.bill_id:
            self.keys.add((delivery.examined.lab_id, delivery.examined.bill_id))
            if len(self.keys) > _KEYS_REMEMBERED:
                self.keys = None


_FIRST_YEAR, _END_YEAR = 1971, 2999  # a day within what the log takes, whatever the offset
_LINE = msgspec.json.Decoder(ExportLine)
_UNREADABLE_SHOWN = 100
_KEYS_REMEMBERED = 10_000
_RANGES_APART = 100_000
_BROKEN_FILE = (ImportFileError, CutOffError, OSError, *BROKEN_GZIP)


def import_lines(
    connection: Connection,
    lines: IO[bytes],
    *,
    exports: bool,
    on_progress: Callable[[int], None],
) -> Imported:
    """Append the events of a file, a batch at a time; what is in the log already is a duplicate.

    `exports`: lines of an export are taken as such, with the time and the source that they name;
    else they are payloads like any other, as befits a file of somebody else's. Interrupted, it is
    run again. Raises `ImportFileError` for a line that is too long; the lines before it are taken
    then. `on_progress` is told the lines done.
    """
    imported = Imported(unreadable_lines=[], ranges=[], keys=set())
    try:
        for batch in _batches(lines, _delivery if exports else _payload):
            outcomes = append(connection, [delivery for _, delivery in batch])
            for (number, delivery), outcome in zip(batch, outcomes, strict=True):
                imported.add(number, delivery, outcome)
            on_progress(batch[-1][0])
    except CutOffError:
        imported.complete = False
    except _BROKEN_FILE as error:
        what = "no whole gzip file: " if isinstance(error, BROKEN_GZIP) else ""
        raise ImportFileError(
            f"{what}{error}. What comes before that was taken: recorded "
            f"{imported.recorded}, duplicate {imported.duplicate}, unreadable "
            f"{imported.unreadable}. Take it in again when it is whole"
        ) from error
    return imported


def export_lines(
    connection: Connection,
    *,
    after: int = 0,
    upto: int | None = None,
    lab_id: str | None = None,
    bill_id: str | None = None,
) -> Iterator[bytes]:
    """Yield the log, or the part of it that is asked for, as lines in order of position."""
    conditions: list[Composable] = [SQL("position > {}").format(Literal(after))]
    for condition, value in (
        (SQL("position <= {}"), upto),
        (SQL("lab_id = {}"), lab_id),
        (SQL("bill_id = {}"), bill_id),
    ):
        if value is not None:
            conditions.append(condition.format(Literal(value)))
    query = SQL(
        "COPY (SELECT position, received_at, source_name(source_letter), body FROM event_log"
        " WHERE {} ORDER BY position) TO STDOUT (FORMAT binary)"
    ).format(SQL(" AND ").join(conditions))
    with connection.cursor().copy(query) as copy:
        copy.set_types(("int8", "timestamptz", "text", "bytea"))
        for position, received_at, source, body in copy.rows():
            yield _line(position, received_at.astimezone(UTC), source, body)


def _line(position: int, received_at: datetime, source: Source, body: bytes) -> bytes:
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


def _batches(
    lines: IO[bytes], deliver: Callable[[bytes], Delivery]
) -> Iterator[list[tuple[int, Delivery]]]:
    batch: list[tuple[int, Delivery]] = []
    size = 0
    try:
        for number, line in numbered(lines):
            batch.append((number, deliver(line)))
            size += len(line)
            if len(batch) == BATCH or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    except _BROKEN_FILE:
        if batch:  # what came before the break is taken
            yield batch
        raise
    if batch:
        yield batch


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch, as those of a file taken in again in another order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _payload(line: bytes) -> Delivery:
    return Delivery.of(line, received_at=datetime.now(UTC), source="import")


def _delivery(line: bytes) -> Delivery:
    try:
        return _restored(_LINE.decode(line))
    except (msgspec.MsgspecError, ValueError):
        return _payload(line)


def _restored(line: ExportLine) -> Delivery:
    """Make the delivery that a line of an export tells of. Raises `ValueError` if it cannot be."""
    if not _FIRST_YEAR <= line.received_at.year < _END_YEAR:
        raise ValueError("no time at which anything was received")
    if not isinstance(line.raw, UnsetType):
        body = base64.b64decode(line.raw, validate=True)
    else:
        body = b"" if isinstance(line.body, UnsetType) else bytes(line.body)
    return Delivery.of(body, received_at=line.received_at, source=line.source)
