"""Imports the events of a file into the log, a batch at a time."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from psycopg import Connection

from ledger.errors import ForbiddenError, ImportFileError
from ledger.eventlog import read
from ledger.eventlog.append import Delivery, append
from ledger.eventlog.erase import carry_out
from ledger.eventlog.import_counts import Imported, extended
from ledger.eventlog.import_values import Options, events_of, holds_event
from ledger.eventlog.json_values import Value
from ledger.eventlog.liveness_transfer import LivenessRecord, store_records
from ledger.model.operator_events import BODY_ERASED

BATCH = 500
BATCH_BYTES = 8 * 1024 * 1024


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
    reading = file.read(holds_event)
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
                            recorded = extended(recorded, outcome.position)
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
    reading = file.read(holds_event)
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
        for value in events_of(text, options):
            batch.append(Entry(number, value))
            size += batch[-1].size
            if len(batch) == BATCH or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _records(batch: list[Entry]) -> list[LivenessRecord]:
    return [value for _, value in batch if isinstance(value, LivenessRecord)]
