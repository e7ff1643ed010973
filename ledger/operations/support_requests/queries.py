"""Support requests as they were made, with what came of them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from psycopg import Connection

from ledger.errors import UnknownSubjectError
from ledger.model.loss_windows import Interval, difference
from ledger.model.missing_events import Evidence
from ledger.model.operator_events import EventRequested
from ledger.model.operators import Labs, as_array, concerns
from ledger.model.request_lines import Line, LineState
from ledger.operations.loss_windows import closed_windows
from ledger.operations.read_models import LossWindow, RequestItem, RequestLine, SupportRequest

_REQUESTS = """
SELECT
    r.request,
    r.made_at,
    r.made_by,
    r.made_by_key,
    r.lab_id,
    r.note,
    c.reason,
    l.requested,
    l.received,
    l.closed
FROM state.support_request r
LEFT JOIN LATERAL (
    SELECT c.reason
    FROM state.support_request_closing c
    WHERE c.request = r.request AND (c.labs = '{}' OR c.labs @> %(labs)s::text[])
    ORDER BY c.position
    LIMIT 1
) c ON true
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE l.state = 'requested') AS requested,
        count(*) FILTER (WHERE l.state = 'received') AS received,
        count(*) FILTER (WHERE l.state = 'closed') AS closed
    FROM state.request_line l
    WHERE
        l.request = r.request
        AND (%(labs)s::text[] IS NULL OR l.lab_id = ANY(%(labs)s::text[]))
) l
WHERE
    (%(number)s::bigint IS NULL OR r.request = %(number)s)
    AND (%(before)s::bigint IS NULL OR r.request < %(before)s)
    AND (
        %(labs)s::text[] IS NULL
        OR l.requested + l.received + l.closed > 0
        OR EXISTS (
            SELECT
            FROM state.support_request_window w
            WHERE w.request = r.request AND w.labs && %(labs)s::text[]
        )
    )
ORDER BY r.request DESC
LIMIT %(limit)s
"""

_WINDOWS = """
SELECT w.begins_at, w.ends_at, w.labs
FROM state.support_request_window w
WHERE w.request = %s
ORDER BY w.position, w.nth
"""

_LINES = """
SELECT
    l.lab_id,
    l.bill_id,
    l.request,
    l.event_type,
    nullif(l.test_id, ''),
    l.state,
    l.received_position,
    l.reason,
    l.integrator_id,
    l.certainty,
    l.count,
    l.evidence_position,
    l.evidence_event_type,
    l.evidence_event_time,
    l.evidence_received_at,
    l.previous,
    l.requested_at,
    l.requested_by,
    l.requested_by_key
FROM state.request_line l
WHERE
    l.request = %s
    AND (%s OR l.state = 'requested')
    AND (%s::text[] IS NULL OR l.lab_id = ANY(%s::text[]))
ORDER BY l.lab_id, l.bill_id, l.test_id, l.event_type
"""

_CONCERNS_OTHERS = """
SELECT EXISTS (
    SELECT FROM state.request_line l
    WHERE l.request = %(number)s AND NOT l.lab_id = ANY(%(labs)s::text[])
) OR EXISTS (
    SELECT FROM state.support_request_window w
    WHERE w.request = %(number)s AND (w.labs = '{}' OR NOT w.labs <@ %(labs)s::text[])
)
"""

_OF_BILL = """
SELECT l.request, l.event_type, nullif(l.test_id, ''), l.state, l.reason, l.requested_at
FROM state.request_line l
WHERE l.lab_id = %s AND l.bill_id = %s
ORDER BY l.request, l.test_id, l.event_type
"""

_LAST = "SELECT max(r.request) FROM state.support_request r"


def read_request(connection: Connection, number: int, *, labs: Labs = None) -> SupportRequest:
    """Return a request with all its lines, or with those of `labs`.

    A request that concerns none of these labs does not exist for them. Raises `UnknownSubjectError`
    with those there are.
    """
    found = _requests(connection, number=number, labs=labs, limit=1)
    if not found:
        raise UnknownSubjectError(_what_requests(connection, number, labs))
    request = found[0]
    return SupportRequest(
        number=number,
        state=request.state,
        made_at=request.made_at,
        made_by=request.made_by,
        made_by_key=request.made_by_key,
        lab_id=request.lab_id,
        note=request.note,
        lines=[
            request_line(lab_id, bill_id, line)
            for lab_id, bill_id, line in _lines(connection, number, closed_too=True, labs=labs)
        ],
        loss_windows=request.loss_windows,
        closed_reason=request.closed_reason,
    )


def list_requests(
    connection: Connection, *, limit: int, before: int | None = None, labs: Labs = None
) -> list[RequestItem]:
    """Return requests, the newest first; `before`: those with a smaller number.

    With `labs`: those that concern one of these labs, and of them what concerns these labs.
    """
    return _requests(connection, before=before, labs=labs, limit=limit)


class BillLine(NamedTuple):
    """What a request asked for of a bill, and what came of it. Times are UTC."""

    request: int
    event_type: str
    test_id: str | None
    state: LineState
    reason: str | None
    requested_at: datetime


def lines_of_bill(connection: Connection, lab_id: str, bill_id: str) -> list[BillLine]:
    """Return what was asked for of a bill, request by request."""
    return [BillLine(*row) for row in connection.execute(_OF_BILL, (lab_id, bill_id))]


def concerns_only(connection: Connection, number: int, labs: Labs) -> bool:
    """Return whether all that a request asks for is of `labs`."""
    if labs is None:
        return True
    values = {"number": number, "labs": as_array(labs)}
    row = connection.execute(_CONCERNS_OTHERS, values).fetchone()
    return not (row and row[0])


def open_lines(connection: Connection, number: int) -> Iterator[tuple[str, str, Line]]:
    """Yield the lines of a request that are still to come, each with its lab and bill."""
    return _lines(connection, number, closed_too=False, labs=None)


def _requests(
    connection: Connection,
    *,
    limit: int,
    labs: Labs,
    number: int | None = None,
    before: int | None = None,
) -> list[RequestItem]:
    parameters = {"number": number, "before": before, "labs": as_array(labs), "limit": limit}
    items = []
    for row in connection.execute(_REQUESTS, parameters).fetchall():
        request, made_at, made_by, made_by_key, lab_id, note, closed_reason, *counts = row
        requested, received, closed = counts
        windows = _windows(connection, request, labs)
        if not concerns_only(connection, request, labs):
            note = None  # written about the request as a whole
        is_open = requested or any(window.state == "requested" for window in windows)
        items.append(
            RequestItem(
                number=request,
                state="open" if is_open else "closed",
                made_at=made_at.astimezone(UTC),
                made_by=made_by,
                made_by_key=made_by_key,
                lab_id=lab_id or None,
                note=note,
                lines={"requested": requested, "received": received, "closed": closed},
                loss_windows=windows,
                closed_reason=closed_reason,
            )
        )
    return items


def _lines(
    connection: Connection, number: int, *, closed_too: bool, labs: Labs
) -> Iterator[tuple[str, str, Line]]:
    values = (number, closed_too, as_array(labs), as_array(labs))
    for row in connection.execute(_LINES, values):
        lab_id, bill_id, request, event_type, test_id, state, received_position, reason = row[:8]
        integrator_id, certainty, count, position, evidence_type, event_time, received_at = row[
            8:15
        ]
        previous, requested_at, requested_by, requested_by_key = row[15:]
        asked = EventRequested(
            at=requested_at.astimezone(UTC),
            by=requested_by,
            by_key=requested_by_key,
            lab_id=lab_id,
            bill_id=bill_id,
            event_type=event_type,
            test_id=test_id,
            count=count,
            request=request,
            certainty=certainty,
            integrator_id=integrator_id,
            evidence=Evidence(
                position, evidence_type, event_time.astimezone(UTC), received_at.astimezone(UTC)
            ),
            previous=previous,
        )
        yield lab_id, bill_id, Line(asked, state, received_position, reason)


def last_number(connection: Connection) -> int:
    """Return the number of the newest request, 0 if none was made."""
    row = connection.execute(_LAST).fetchone()
    return (row and row[0]) or 0


def request_line(lab_id: str, bill_id: str, line: Line) -> RequestLine:
    """Return a line as reports show it."""
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


def _windows(connection: Connection, number: int, only: Labs) -> list[LossWindow]:
    """Return the windows that a request asks for, each closed if it is closed for all its labs.

    With `only`: those that concern one of these labs, as far as they do.
    """
    windows = [
        (Interval(begin.astimezone(UTC), end.astimezone(UTC)), concerned)
        for begin, end, labs in connection.execute(_WINDOWS, (number,))
        if (concerned := [lab for lab in labs if concerns(only, lab)]) or only is None
    ]
    if not windows:
        return []
    closed = closed_windows(connection)
    return [
        LossWindow(
            window.begin,
            window.end,
            labs,
            "requested" if any(difference([window], closed[lab]) for lab in labs) else "closed",
        )
        for window, labs in windows
    ]


def _what_requests(connection: Connection, number: int, labs: Labs) -> str:
    if labs is not None:
        return (
            f"there is no support request {number}; GET /v1/support-requests lists those there are"
        )
    last = last_number(connection)
    there = f"there are 1 to {last}" if last else "none has been made yet"
    return f"there is no support request {number}; {there}"
