"""Applies operators' decisions to a bill's missing events, and tracks the lines they requested.

Source: docs/rules.md, "Operators' decisions". The event that a line asked for answers the line,
whoever sent the event and whatever else was decided. If reports of unknown tests are missing,
nobody can say which of them arrived: their line is answered as soon as none is missing, even for a
while; any that are missing after that are new. So for them the order of events and decisions in the
log matters.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Literal

import msgspec
from msgspec import Struct

from ledger.model.bill_history import BillHistory, LoggedEvent
from ledger.model.missing_events import MissingEvent
from ledger.model.operator_events import (
    BillDecision,
    EventClosed,
    EventRequested,
    EventUnwaived,
    EventWaived,
    LoggedDecision,
)

LineState = Literal["requested", "received", "closed"]

_MissingCounts = list[tuple[int, int]]
"""How many reports of unknown tests were missing after each log position, in log order."""


class Line(Struct, frozen=True):
    """A missing event that a support request asked for.

    `received_position` is the log position of the event that answered it. `reason` says why a line
    without an answer is closed.
    """

    asked: EventRequested
    state: LineState
    received_position: int | None = None
    reason: str | None = None


class _Requested(Struct, frozen=True):
    """A line with its log position and the decision that closed it, if any."""

    position: int
    decision: EventRequested
    closing: EventClosed | None
    repeated_in: int | None
    """The number of the later request that asked for the same event again."""


def apply_decisions(
    history: BillHistory, missing: list[MissingEvent], decisions: Sequence[LoggedDecision]
) -> tuple[list[MissingEvent], list[Line]]:
    """Return the missing events with the decisions applied, and the lines sorted by request."""
    ordered = sorted(decisions, key=attrgetter("position"))
    waivers = _waivers_in_force(ordered)
    asked = _lines(ordered)
    counts = _missing_counts(history)
    return (
        [_decided(one, waivers, asked, counts) for one in missing],
        [_line(line, history, missing, waivers, counts) for line in asked],
    )


def _waivers_in_force(ordered: list[LoggedDecision]) -> list[LoggedDecision]:
    """Return the waivers, and the closings that imply one, that were not taken back later."""
    in_force: list[LoggedDecision] = []
    for one in ordered:
        if isinstance(one.decision, (EventWaived, EventClosed)):
            in_force.append(one)
        elif isinstance(one.decision, EventUnwaived):
            in_force = [
                other for other in in_force if other.decision.subject != one.decision.subject
            ]
    return in_force


def _lines(ordered: list[LoggedDecision]) -> list[_Requested]:
    """Return the lines sorted by request; the first counts if one was logged twice."""
    asked: dict[tuple[int, tuple[str, str]], tuple[int, EventRequested]] = {}
    closed: dict[tuple[int, tuple[str, str]], EventClosed] = {}
    again: dict[tuple[int, tuple[str, str]], int] = {}
    for position, decision in ((one.position, one.decision) for one in ordered):
        if isinstance(decision, EventRequested):
            asked.setdefault((decision.request, decision.subject), (position, decision))
            if decision.previous is not None:
                again.setdefault((decision.previous, decision.subject), decision.request)
        elif isinstance(decision, EventClosed):
            closed.setdefault((decision.request, decision.subject), decision)
    return [
        _Requested(position, decision, closed.get(name), again.get(name))
        for name, (position, decision) in sorted(asked.items())
    ]


def _missing_counts(history: BillHistory) -> _MissingCounts:
    """Return how many reports the bill's reports proved missing, as the events came in."""
    reported: set[str] = set()
    counts = []
    for count, event in enumerate(sorted(history.reports, key=attrgetter("position")), start=1):
        reported.update(event.completed)
        counts.append((event.position, len(reported) - count))
    return counts


def _decided(
    missing: MissingEvent,
    waivers: list[LoggedDecision],
    asked: list[_Requested],
    counts: _MissingCounts,
) -> MissingEvent:
    waived = [one for one in waivers if one.decision.subject == missing.subject]
    lines = [
        line
        for line in asked
        if line.decision.subject == missing.subject
        and line.repeated_in is None
        and _left(line.position, line.decision, counts)
    ]
    # A closed line counts through its closing.
    asked_count = sum(
        _left(line.position, line.decision, counts) for line in lines if line.closing is None
    )
    waived_count = sum(_left(one.position, one.decision, counts) for one in waived)
    waiver = _deciding_waiver(missing, waived, counts)
    decided = min(waived_count + asked_count, missing.count)
    if not decided:
        return missing
    is_asked = bool(lines) and decided == missing.count
    return msgspec.structs.replace(
        missing,
        decided=decided,
        request=lines[-1].decision.request if lines else None,
        requested_at=lines[-1].decision.at if is_asked else None,
        waived_at=waiver.at if waiver else None,
    )


def _deciding_waiver(
    missing: MissingEvent, waivers: list[LoggedDecision], counts: _MissingCounts
) -> BillDecision | None:
    """Return the waiver with which all that is missing was waived, None if some of it is not."""
    count = 0
    for one in waivers:
        count += _left(one.position, one.decision, counts)
        if count >= missing.count:
            return one.decision
    return None


def _left(position: int, decision: BillDecision, counts: _MissingCounts) -> int:
    """Return how many of the events that a decision covers can still be missing."""
    if decision.test_id is not None or decision.event_type != "report.completed":
        return decision.count
    least = min((lacking for at, lacking in counts if at > position), default=decision.count)
    return max(0, min(decision.count, least))


def _line(
    line: _Requested,
    history: BillHistory,
    missing: list[MissingEvent],
    waivers: list[LoggedDecision],
    counts: _MissingCounts,
) -> Line:
    asked = line.decision
    answer = _answer(line, history, counts)
    if answer is not None:
        return Line(asked, "received", received_position=answer)
    reason = _closing_reason(line, history, missing, waivers, counts)
    return Line(asked, "closed", reason=reason) if reason else Line(asked, "requested")


def _closing_reason(
    line: _Requested,
    history: BillHistory,
    missing: list[MissingEvent],
    waivers: list[LoggedDecision],
    counts: _MissingCounts,
) -> str | None:
    """Return why an unanswered line is closed, None if the event is still asked for."""
    if line.closing:
        return line.closing.reason
    if line.repeated_in is not None:
        return f"asked for again in request {line.repeated_in}"
    if history.deletions:
        return "the bill was deleted"
    subject = line.decision.subject
    still_missing = next((one for one in missing if one.subject == subject), None)
    if still_missing is None:
        return "later events show that it had not been sent yet"
    waived = [
        one
        for one in waivers
        if isinstance(one.decision, EventWaived) and one.decision.subject == subject
    ]
    waiver = _deciding_waiver(still_missing, waived, counts)
    return f"waived: {waiver.reason}" if isinstance(waiver, EventWaived) else None


def _answer(line: _Requested, history: BillHistory, counts: _MissingCounts) -> int | None:
    """Return the position of the event that was asked for, None if it has not come."""
    asked = line.decision
    if asked.event_type == "report.completed" and asked.test_id is None:
        return next((at for at, lacking in counts if at > line.position and lacking <= 0), None)
    events: list[LoggedEvent]
    if asked.event_type == "bill.created":
        events = history.creations
    elif asked.event_type == "bill.completed":
        events = history.completions
    elif asked.event_type == "bill.deleted":
        events = history.deletions
    else:
        events = [event for event in history.reports if asked.test_id in event.completed]
    return min((event.position for event in events), default=None)
