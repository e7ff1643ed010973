"""Takes in what support sends, and tells which lines of which requests it settled."""

from collections.abc import Callable
from typing import IO, Any, LiteralString

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import DecisionError
from ledger.eventlog import read
from ledger.eventlog.import_export import Imported, import_lines
from ledger.model.bill_history import LoggedEvent, resent
from ledger.operations.decisions import catch_up
from ledger.projection.rows import read_row

SHOWN = 1_000
"""Lines and events of each kind that a report lists; its counts are of all."""


class RefusedLine(Struct, frozen=True):
    """A line (of an array: an element) that was kept, and cannot be read as an event: why."""

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
    """An event that equals an earlier webhook but for its eventTime: it is no second fact."""

    position: int
    lab_id: str
    bill_id: str
    same_as_position: int


class ImportReport(Struct, frozen=True):
    """What became of a file.

    `settled` are lines of support requests that events of this file answered; `still_open` are
    those that no event has answered yet, whatever the file. Of both, and of `resent`, the first
    thousand are listed. `resent` is null for a file of very many bills, where it was not looked at.
    `complete` is false where a JSON array was cut off: what was there of it is taken.
    """

    recorded: int
    duplicate: int
    unreadable: int
    unreadable_lines: list[RefusedLine]
    settled_count: int
    settled: list[SettledLine]
    still_open_count: int
    still_open: list[SettledLine]
    resent: list[ResentEvent] | None
    complete: bool
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
WHERE l.state = 'requested'
ORDER BY 1, 2, 3, 5, 4
"""


def import_file(
    url: str,
    connection: Connection,
    lines: IO[bytes],
    *,
    exports: bool,
    patience: float,
    on_progress: Callable[[int], None],
) -> ImportReport:
    """Append a file's events and say what they settled, once the state knows them.

    Raises `ImportFileError`, and `DecisionError` if the state has not caught up in time: all is in
    the log then, and taking the file in again tells what it settled.
    """
    imported = import_lines(connection, lines, exports=exports, on_progress=on_progress)
    try:
        position = catch_up(url, connection, patience=patience)
    except DecisionError as error:
        raise DecisionError(
            f"the file is taken: recorded {imported.recorded}, duplicate {imported.duplicate}, "
            f"unreadable {imported.unreadable}. What it settled is not known yet, for {error}; "
            "taking the file in again does no harm, and tells"
        ) from error
    return report(connection, imported, position)


def report(connection: Connection, imported: Imported, position: int) -> ImportReport:
    """Say what an import settled; the state is true for `position`, after all that it recorded."""
    firsts, lasts = [first for first, _ in imported.ranges], [last for _, last in imported.ranges]
    settled, settled_count = _lines(connection, _SETTLED, (firsts, lasts))
    still_open, open_count = _lines(connection, _STILL_OPEN, ())
    return ImportReport(
        recorded=imported.recorded,
        duplicate=imported.duplicate,
        unreadable=imported.unreadable,
        unreadable_lines=[
            RefusedLine(
                line.number, line.unreadable.reason, line.unreadable.path, line.unreadable.detail
            )
            for line in imported.unreadable_lines
        ],
        settled_count=settled_count,
        settled=settled,
        still_open_count=open_count,
        still_open=still_open,
        resent=_resent(connection, imported, position),
        complete=imported.complete,
        position=position,
    )


def _lines(
    connection: Connection, query: LiteralString, values: tuple[Any, ...]
) -> tuple[list[SettledLine], int]:
    rows = connection.execute(
        SQL("SELECT l.*, count(*) OVER () FROM ({}) l LIMIT {}").format(SQL(query), SHOWN),
        values or None,
    ).fetchall()
    lines = [
        SettledLine(request, lab_id, bill_id, event_type, test_id or None, received_position)
        for request, lab_id, bill_id, event_type, test_id, received_position, _ in rows
    ]
    return lines, rows[0][-1] if rows else 0


def _resent(connection: Connection, imported: Imported, position: int) -> list[ResentEvent] | None:
    if imported.keys is None:
        return None
    histories: dict[tuple[str, str], list[LoggedEvent]] = {}
    for row in read.of_bills(connection, sorted(imported.keys), position):
        event = read_row(row)
        if isinstance(event, LoggedEvent):
            histories.setdefault((row.lab_id, row.bill_id), []).append(event)
    found = [
        ResentEvent(again, lab_id, bill_id, original)
        for (lab_id, bill_id), events in histories.items()
        for again, original in resent(events).items()
        if any(first <= again <= last for first, last in imported.ranges)
    ]
    return sorted(found, key=lambda event: event.position)[:SHOWN]
