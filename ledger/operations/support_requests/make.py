"""Support requests: made of what is overdue, closed with a reason."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import DecisionError, UnknownSubjectError
from ledger.event_types import EventType
from ledger.model.operator_events import (
    AnyDecision,
    EventClosed,
    EventRequested,
    RequestClosed,
    RequestMade,
    Span,
    WindowClosed,
)
from ledger.model.operators import Labs, Operator, as_array, concerns
from ledger.model.request_lines import Line
from ledger.operations.decisions import MOST_AT_ONCE, catch_up, deciding, record, see
from ledger.operations.loss_windows import read_windows
from ledger.operations.missing_events.queries import (
    COLUMNS,
    IN_STATE,
    SUBSCRIBED,
    StoredMissing,
    parameters,
)
from ledger.operations.policy import Policy
from ledger.operations.read_models import LossWindow, SupportRequest
from ledger.operations.support_requests.queries import (
    concerns_only,
    last_number,
    open_lines,
    read_request,
    request_line,
)

# What was asked for long ago, and neither came nor was closed, is asked for again.
_TO_ASK = SQL("""
SELECT m.lab_id, m.bill_id, m.integrator_id, {columns}
FROM state.missing_event m
WHERE (({overdue}) OR ({requested} AND m.requested_at <= %(asked_before)s))
    AND {subscribed}
    AND (%(include_possible)s OR m.certainty = 'certain')
    AND (%(labs)s::text[] IS NULL OR m.lab_id = ANY(%(labs)s::text[]))
ORDER BY m.evidence_received_at, m.lab_id, m.bill_id, m.test_id, m.event_type
LIMIT %(limit)s
""").format(
    columns=SQL(COLUMNS),
    overdue=SQL(IN_STATE["overdue"]),
    requested=SQL(IN_STATE["requested"]),
    subscribed=SQL(SUBSCRIBED),
)


class LineName(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a request by what it asks for."""

    lab_id: str
    bill_id: str
    event_type: EventType
    test_id: str | None = None


def make_request(
    url: str,
    policy: Policy,
    *,
    lab_id: str | None,
    include_possible: bool,
    note: str | None,
    by: Operator,
    patience: float,
    now: datetime | None = None,
) -> tuple[SupportRequest, int] | None:
    """Ask for all that is overdue and not asked for yet, and for open loss windows, in one request.

    Returns it with the position for which it is true; None if there is nothing to ask for. `now` is
    when it is made, if not at this moment. Of very many the oldest are asked for, and the next
    request takes the rest. It asks for labs that `by` may decide for, and no others. Raises
    `UnknownSubjectError` for a lab that was never heard of; `DecisionError`.
    """
    labs = by.labs if lab_id is None else (lab_id,)
    with deciding(url, patience=patience) as connection:
        if lab_id is not None:
            _check_lab(connection, lab_id, by.labs)
        now = now or datetime.now(UTC)
        values = {
            **parameters(policy, now),
            "asked_before": now - policy.ask_again_after,
            "include_possible": include_possible,
            "labs": as_array(labs),
            "limit": MOST_AT_ONCE,
        }
        rows = connection.execute(_TO_ASK, values).fetchall()
        head = catch_up(url, connection, patience=patience)
        windows = [
            Span(window.begin, window.end, window.labs)
            for window in read_windows(connection, policy, now, position=head, labs=labs)
            if window.state == "open" and window.labs
        ]
        if not rows and not windows:
            return None
        number = 1 + last_number(connection)
        lines = [_ask(row, number, now, by) for row in rows]
        made = RequestMade(
            at=now,
            by=by.name,
            by_key=by.key,
            request=number,
            lab_id=labs[0] if labs and len(labs) == 1 else None,
            note=note,
            lines=len(lines),
            windows=windows,
        )
        position = record(connection, [made, *lines])
        with suppress(DecisionError):  # the request exists: the caller must learn its number
            catch_up(url, connection, patience=patience, upto=position)
        return _new_request(made, lines), position


def _new_request(made: RequestMade, lines: list[EventRequested]) -> SupportRequest:
    asked = sorted(lines, key=lambda line: (line.lab_id, line.bill_id, *reversed(line.subject)))
    return SupportRequest(
        number=made.request,
        state="open",
        made_at=made.at,
        made_by=made.by,
        made_by_key=made.by_key,
        lab_id=made.lab_id,
        note=made.note,
        lines=[request_line(line.lab_id, line.bill_id, Line(line, "requested")) for line in asked],
        loss_windows=[
            LossWindow(span.begin, span.end, span.labs, "requested") for span in made.windows
        ],
        closed_reason=None,
    )


def close_request(
    url: str,
    number: int,
    *,
    reason: str,
    by: Operator,
    lines: Sequence[LineName] | None,
    patience: float,
) -> tuple[SupportRequest, int]:
    """Close what a request asked for and will not come: these lines, or all with its windows.

    What came stays received, and what was closed stays as it was closed. Raises
    `UnknownSubjectError` with what exists; `DecisionError`.
    """
    with deciding(url, patience=patience) as connection:
        request = read_request(connection, number, labs=by.labs)
        now = datetime.now(UTC)
        to_close = _lines_to_close(request, lines)
        decisions: list[AnyDecision] = [
            EventClosed(
                at=now,
                by=by.name,
                by_key=by.key,
                lab_id=lab_id,
                bill_id=bill_id,
                event_type=line.asked.event_type,
                test_id=line.asked.test_id,
                count=line.asked.count,
                request=number,
                reason=reason,
            )
            for lab_id, bill_id, line in open_lines(connection, number)
            if (lab_id, bill_id, *line.asked.subject) in to_close
        ]
        if lines is None:
            decisions += _closing_of_all(connection, request, now, by, reason)
        position = record(connection, decisions) if decisions else None
        position = see(url, connection, patience=patience, position=position)
        return read_request(connection, number, labs=by.labs), position


def _closing_of_all(
    connection: Connection, request: SupportRequest, now: datetime, by: Operator, reason: str
) -> list[AnyDecision]:
    """Return what closes a request with its windows; of a part of it, only that part's windows."""
    if request.closed_reason is not None:
        return []
    is_whole = concerns_only(connection, request.number, by.labs)
    closing = RequestClosed(
        at=now,
        by=by.name,
        by_key=by.key,
        request=request.number,
        reason=reason,
        labs=None if is_whole else as_array(by.labs),
    )
    windows = [
        WindowClosed(
            at=now,
            by=by.name,
            by_key=by.key,
            window=Span(window.begin, window.end, window.labs),
            reason=reason,
        )
        for window in request.loss_windows
        if window.state != "closed"
    ]
    return [closing] if is_whole else [closing, *windows]


def _lines_to_close(
    request: SupportRequest, lines: Sequence[LineName] | None
) -> set[tuple[str, str, str, str]]:
    there: set[tuple[str, str, str, str]] = {
        (line.lab_id, line.bill_id, line.event_type, line.test_id or "") for line in request.lines
    }
    if lines is None:
        return there
    wanted: set[tuple[str, str, str, str]] = set()
    wanted |= {(line.lab_id, line.bill_id, line.event_type, line.test_id or "") for line in lines}
    if unknown := sorted(wanted - there):
        lab_id, bill_id, event_type, test_id = unknown[0]
        test = f" of test {test_id!r}" if test_id else ""
        raise UnknownSubjectError(
            f"request {request.number} has no line for {event_type}{test} of bill {bill_id!r} of "
            f"lab {lab_id!r}; GET /v1/support-requests/{request.number} lists its "
            f"{len(there)} lines"
        )
    return wanted


def _ask(row: tuple[Any, ...], number: int, now: datetime, by: Operator) -> EventRequested:
    lab_id, bill_id, integrator_id, *columns = row
    stored = StoredMissing(*columns)
    return EventRequested(
        at=now,
        by=by.name,
        by_key=by.key,
        lab_id=lab_id,
        bill_id=bill_id,
        event_type=stored.event_type,
        test_id=stored.test_id or None,
        # Asked for again: all of it. Else what was not decided about before.
        count=stored.count - (stored.decided if stored.requested_at is None else 0),
        request=number,
        certainty=stored.certainty,
        integrator_id=integrator_id,
        evidence=stored.folded().evidence,
        previous=None if stored.requested_at is None else stored.request,
    )


_KNOWN = "SELECT EXISTS (SELECT FROM state.lab WHERE lab_id = %s)"
_LABS = """
SELECT lab_id
FROM state.lab
WHERE %s::text[] IS NULL OR lab_id = ANY(%s::text[])
ORDER BY lab_id
LIMIT 11
"""


def _check_lab(connection: Connection, lab_id: str, labs: Labs) -> None:
    if concerns(labs, lab_id) and _one(connection, _KNOWN, lab_id):
        return
    named = connection.execute(_LABS, (as_array(labs), as_array(labs))).fetchall()
    raise UnknownSubjectError(f"no event of lab {lab_id!r} has been received; {_named(named)}")


def _named(labs: Iterable[tuple[Any, ...]]) -> str:
    names = [repr(lab) for (lab,) in labs]
    shown = 10
    if not names:
        return "none of any lab has"
    return f"labs are {', '.join(names[:shown])}{' and more' if len(names) > shown else ''}"


def _one(connection: Connection, query: str, *values: object) -> Any:  # noqa: ANN401 -- whatever the query gives
    row = connection.execute(query.encode(), values or None).fetchone()
    assert row  # noqa: S101 -- the queries above give one row
    return row[0]
