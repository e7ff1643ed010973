"""Support requests as they were made, with what came of them."""

from collections.abc import Iterator

import msgspec
from psycopg import Connection

from ledger.errors import UnknownSubjectError
from ledger.model.loss_windows import Interval, difference
from ledger.model.operator_events import RequestClosed, RequestMade
from ledger.model.request_lines import Line
from ledger.operations.loss_windows import closed_windows
from ledger.operations.read_models import LossWindow, RequestItem, RequestLine, SupportRequest

_MADE = """
SELECT d.decision::text, c.decision::text
FROM state.desk_event d
LEFT JOIN LATERAL (
    SELECT decision FROM state.desk_event
    WHERE kind = 'request.closed' AND request = d.request
    ORDER BY position LIMIT 1
) c ON true
WHERE d.kind = 'request.made' AND d.request = %s
"""

_LIST = """
SELECT d.decision::text, c.decision::text, l.requested, l.received, l.closed
FROM state.desk_event d
LEFT JOIN LATERAL (
    SELECT decision FROM state.desk_event
    WHERE kind = 'request.closed' AND request = d.request
    ORDER BY position LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE state = 'requested') AS requested,
        count(*) FILTER (WHERE state = 'received') AS received,
        count(*) FILTER (WHERE state = 'closed') AS closed
    FROM state.request_line
    WHERE request = d.request
) l ON true
WHERE d.kind = 'request.made' AND (%(before)s::int IS NULL OR d.request < %(before)s)
ORDER BY d.request DESC
LIMIT %(limit)s
"""

_LINES = """
SELECT lab_id, bill_id, line::text
FROM state.request_line
WHERE request = %s AND (%s OR state = 'requested')
ORDER BY lab_id, bill_id, test_id, event_type
"""

_LAST = "SELECT max(request) FROM state.desk_event WHERE kind = 'request.made'"

_made = msgspec.json.Decoder(RequestMade).decode
_closed = msgspec.json.Decoder(RequestClosed).decode
_line = msgspec.json.Decoder(Line).decode


def read_request(connection: Connection, number: int) -> SupportRequest:
    """Return a request with all its lines. Raises `UnknownSubjectError` with those there are."""
    row = connection.execute(_MADE, (number,)).fetchone()
    if row is None:
        raise UnknownSubjectError(_what_requests(connection, number))
    made = _made(row[0])
    lines = [
        request_line(lab_id, bill_id, _line(text))
        for lab_id, bill_id, text in connection.execute(_LINES, (number, True))
    ]
    windows = _windows(connection, made)
    is_open = any(line.state == "requested" for line in lines) or any(
        window.state == "requested" for window in windows
    )
    return SupportRequest(
        number=number,
        state="open" if is_open else "closed",
        made_at=made.at,
        made_by=made.by,
        lab_id=made.lab_id,
        note=made.note,
        lines=lines,
        loss_windows=windows,
        closed_reason=_closed(row[1]).reason if row[1] else None,
    )


def list_requests(
    connection: Connection, *, limit: int, before: int | None = None
) -> list[RequestItem]:
    """Return requests, the newest first; `before`: those with a smaller number."""
    rows = connection.execute(_LIST, {"before": before, "limit": limit}).fetchall()
    found = []
    for text, closing, requested, received, closed in rows:
        made = _made(text)
        windows = _windows(connection, made)
        is_open = requested or any(window.state == "requested" for window in windows)
        found.append(
            RequestItem(
                number=made.request,
                state="open" if is_open else "closed",
                made_at=made.at,
                made_by=made.by,
                lab_id=made.lab_id,
                note=made.note,
                lines={"requested": requested, "received": received, "closed": closed},
                loss_windows=windows,
                closed_reason=_closed(closing).reason if closing else None,
            )
        )
    return found


def open_lines(connection: Connection, number: int) -> Iterator[tuple[str, str, Line]]:
    """Yield the lines of a request that are still to come, each with its lab and bill."""
    for lab_id, bill_id, text in connection.execute(_LINES, (number, False)):
        yield lab_id, bill_id, _line(text)


def last_number(connection: Connection) -> int:
    """Return the number of the newest request, 0 if none was made."""
    row = connection.execute(_LAST).fetchone()
    return (row and row[0]) or 0


def request_line(lab_id: str, bill_id: str, line: Line) -> RequestLine:
    """Return a line as it is told."""
    asked = line.asked
    return RequestLine(
        lab_id=lab_id,
        bill_id=bill_id,
        integrator_id=asked.integrator_id,
        event_type=asked.event_type,
        test_id=asked.test_id,
        certainty=asked.certainty,
        count=asked.count,
        evidence=asked.evidence,
        previous=asked.previous,
        state=line.state,
        received_position=line.received_position,
        reason=line.reason,
    )


def _windows(connection: Connection, made: RequestMade) -> list[LossWindow]:
    """Return the windows that a request asked for, each closed if it is for all its labs."""
    if not made.windows:
        return []
    closed = closed_windows(connection)
    return [
        LossWindow(
            span.begin,
            span.end,
            span.labs,
            "requested"
            if any(difference([Interval(span.begin, span.end)], closed[lab]) for lab in span.labs)
            else "closed",
        )
        for span in made.windows
    ]


def _what_requests(connection: Connection, number: int) -> str:
    last = last_number(connection)
    there = f"there are 1 to {last}" if last else "none has been made yet"
    return f"there is no support request {number}; {there}"
