"""Imports what support sends, and reports which lines of support requests it settled."""

from collections.abc import Callable
from typing import Any, LiteralString

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import DecisionError
from ledger.eventlog import read
from ledger.eventlog.import_counts import Imported
from ledger.eventlog.import_events import ImportSource, import_events, preview_import
from ledger.eventlog.import_values import Options
from ledger.model.bill_history import resent
from ledger.model.operators import Labs, as_array
from ledger.operations.decisions import catch_up
from ledger.projection.histories import whole_histories
from ledger.projection.read_event import BillEvents

SHOWN = 1_000
"""Lines and events of each kind that a report lists; its counts cover all."""


class RefusedLine(Struct, frozen=True):
    """A value that is no webhook, and why; `line` is its line, or its place in an array."""

    line: int
    reason: str
    path: str
    detail: str


class SettledLine(Struct, frozen=True):
    """A line of a support request, and the log position of the event that settled it, if any."""

    request: int
    lab_id: str
    bill_id: str
    event_type: str
    test_id: str | None
    received_position: int | None


class ResentEvent(Struct, frozen=True):
    """An event that is identical to an earlier webhook except for its eventTime: a duplicate."""

    position: int
    lab_id: str
    bill_id: str
    same_as_position: int


class ImportReport(Struct, frozen=True):
    """What became of a file.

    `unreadable` counts the values that are no webhook, `unreadable_recorded` those of them that
    were recorded all the same. `settled` are lines of support requests that events of this file
    answered; `still_open` are those that no event has answered yet, in this file or elsewhere. The
    first thousand of both, and of `resent`, are listed. `resent` is null for a file of very many
    bills, which are not searched. `complete` is false if the file ends inside a value or an array;
    what precedes that was imported. `import_id` is null if nothing was recorded. A `dry_run`
    recorded nothing and settled nothing; its counts are what an import would report.
    `liveness_records` are those of an export that said something new: when receivers were alive or
    refused deliveries, from which loss windows follow. Over HTTP they are left out.
    """

    recorded: int
    duplicate: int
    unreadable: int
    unreadable_recorded: int
    unreadable_lines: list[RefusedLine]
    settled_count: int
    settled: list[SettledLine]
    still_open_count: int
    still_open: list[SettledLine]
    resent: list[ResentEvent] | None
    complete: bool
    import_id: int | None
    liveness_records: int
    dry_run: bool
    position: int


_SETTLED = """
SELECT DISTINCT l.request, l.lab_id, l.bill_id, l.event_type, l.test_id, l.received_position
FROM unnest(%s::bigint[], %s::bigint[]) AS r (first, last)
JOIN state.request_line l ON l.received_position BETWEEN r.first AND r.last
ORDER BY 1, 2, 3, 5, 4
"""

_STILL_OPEN = """
SELECT l.request, l.lab_id, l.bill_id, l.event_type, l.test_id, NULL
FROM state.request_line l
WHERE l.state = 'requested' AND (%s::text[] IS NULL OR l.lab_id = ANY(%s::text[]))
ORDER BY 1, 2, 3, 5, 4
"""


def import_file(
    url: str,
    connection: Connection,
    file: ImportSource,
    options: Options,
    *,
    patience: float,
    on_progress: Callable[[int], None],
) -> ImportReport:
    """Append a file's events and report what they settled, once the state includes them.

    Raises `ImportFileError`, and `DecisionError` if the state has not caught up after `patience`
    seconds: everything is in the log then, and importing the file again reports what it settled.
    """
    imported = import_events(connection, file, options, on_progress=on_progress)
    try:
        position = catch_up(url, connection, patience=patience)
    except DecisionError as error:
        raise DecisionError(
            f"the file is imported: recorded {imported.recorded}, duplicate {imported.duplicate}, "
            f"unreadable {imported.unreadable}. What it settled is not known yet: {error}. "
            "Importing the file again does no harm and reports it"
        ) from error
    return report(connection, imported, position, options.by.labs)


def preview_file(connection: Connection, file: ImportSource, options: Options) -> ImportReport:
    """Return the counts that importing a file would report. Raises `ImportFileError`."""
    return _report(
        preview_import(connection, file, options), position=read.head(connection), dry_run=True
    )


def report(connection: Connection, imported: Imported, position: int, labs: Labs) -> ImportReport:
    """Report what an import settled; the state is at `position`, which includes the import.

    Lines that are still open are listed for `labs` alone.
    """
    firsts, lasts = [first for first, _ in imported.ranges], [last for _, last in imported.ranges]
    settled, settled_count = _lines(connection, _SETTLED, (firsts, lasts))
    still_open, open_count = _lines(connection, _STILL_OPEN, (as_array(labs), as_array(labs)))
    return msgspec.structs.replace(
        _report(imported, position=position, dry_run=False),
        settled_count=settled_count,
        settled=settled,
        still_open_count=open_count,
        still_open=still_open,
        resent=_resent(connection, imported, position),
    )


def _report(imported: Imported, *, position: int, dry_run: bool) -> ImportReport:
    return ImportReport(
        recorded=imported.recorded,
        duplicate=imported.duplicate,
        unreadable=imported.unreadable,
        unreadable_recorded=imported.unreadable_recorded,
        unreadable_lines=[
            RefusedLine(
                line.number, line.unreadable.reason, line.unreadable.path, line.unreadable.detail
            )
            for line in imported.unreadable_lines
        ],
        settled_count=0,
        settled=[],
        still_open_count=0,
        still_open=[],
        resent=None,
        complete=imported.complete,
        import_id=imported.import_id,
        liveness_records=imported.liveness_records,
        dry_run=dry_run,
        position=position,
    )


def _lines(
    connection: Connection, query: LiteralString, values: tuple[Any, ...]
) -> tuple[list[SettledLine], int]:
    rows = connection.execute(
        SQL("SELECT l.*, count(*) OVER () FROM ({}) l LIMIT {}").format(SQL(query), SHOWN),
        values,
    ).fetchall()
    lines = [
        SettledLine(request, lab_id, bill_id, event_type, test_id or None, received_position)
        for request, lab_id, bill_id, event_type, test_id, received_position, _ in rows
    ]
    return lines, rows[0][-1] if rows else 0


def _resent(connection: Connection, imported: Imported, position: int) -> list[ResentEvent] | None:
    if imported.keys is None:
        return None
    touched = {key: BillEvents() for key in imported.keys}
    found = [
        ResentEvent(again, lab_id, bill_id, original)
        for histories, _ in whole_histories(connection, touched, position)
        for (lab_id, bill_id), history in histories.items()
        for again, original in resent(history.events).items()
        if any(first <= again <= last for first, last in imported.ranges)
    ]
    return sorted(found, key=lambda event: event.position)[:SHOWN]
