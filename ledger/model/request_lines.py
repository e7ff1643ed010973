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
    EventWaived,
    LoggedDecision,
)

LineState = Literal["requested", "received", "closed"]

_MissingCounts = list[tuple[int, int]]
"""The number of missing reports of unknown tests after each position, in order of position."""


class Line(Struct, frozen=True):
    """A line of a support request: a missing event that it asked for.

    `received_position` is the log position of the event that answered it, `reason` why it was
    closed without an answer.
    """

    asked: EventRequested
    state: LineState
    received_position: int | None = None
    reason: str | None = None


class _Requested(Struct, frozen=True):
    """A line as requested, with its position in the log and the decisions that ended it."""

    position: int
    decision: EventRequested
    closing: EventClosed | None
    repeated_in: int | None
    """The number of the later request that asked for the same event again."""


def apply_decisions(
    history: BillHistory, missing: list[MissingEvent], decisions: Sequence[LoggedDecision]
) -> tuple[list[MissingEvent], list[Line]]:
    """Return the missing events with the decisions about them, and the lines by request."""
    ordered = sorted(decisions, key=attrgetter("position"))
    waivers = [one for one in ordered if isinstance(one.decision, (EventWaived, EventClosed))]
    asked = _lines(ordered)
    counts = _missing_counts(history)
    return (
        [_decided(one, waivers, asked, counts) for one in missing],
        [_line(line, history, missing, counts) for line in asked],
    )


def _lines(ordered: list[LoggedDecision]) -> list[_Requested]:
    """Return the lines by request. If a line was logged twice, the first one counts."""
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
    """Return how many reports were known to be missing after each `report.completed` was logged."""
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
    # A closed line counts as a waiver from its closing on.
    asked_count = sum(
        _left(line.position, line.decision, counts) for line in lines if line.closing is None
    )
    waived_count, waived_at = 0, None
    for one in waived:
        waived_count += _left(one.position, one.decision, counts)
        if waived_at is None and waived_count >= missing.count:
            waived_at = one.decision.at
    decided = min(waived_count + asked_count, missing.count)
    if not decided:
        return missing
    is_asked = bool(lines) and decided == missing.count
    return msgspec.structs.replace(
        missing,
        decided=decided,
        request=lines[-1].decision.request if lines else None,
        requested_at=lines[-1].decision.at if is_asked else None,
        waived_at=waived_at,
    )


def _left(position: int, decision: BillDecision, counts: _MissingCounts) -> int:
    """Return how many of the missing events that a decision is about can still be missing."""
    if decision.test_id is not None or decision.event_type != "report.completed":
        return decision.count
    least = min((count for at, count in counts if at > position), default=decision.count)
    return max(0, min(decision.count, least))


def _line(
    line: _Requested, history: BillHistory, missing: list[MissingEvent], counts: _MissingCounts
) -> Line:
    asked = line.decision
    answer = _answer(line, history, counts)
    if answer is not None:
        return Line(asked, "received", received_position=answer)
    if line.closing:
        return Line(asked, "closed", reason=line.closing.reason)
    if line.repeated_in is not None:
        return Line(asked, "closed", reason=f"asked for again in request {line.repeated_in}")
    if history.deletions:
        return Line(asked, "closed", reason="the bill was deleted")
    if all(one.subject != asked.subject for one in missing):
        return Line(asked, "closed", reason="later events show that it had not been sent yet")
    return Line(asked, "requested")


def _answer(line: _Requested, history: BillHistory, counts: _MissingCounts) -> int | None:
    """Return the position of the event that answers a line, None if there is none."""
    asked = line.decision
    if asked.event_type == "report.completed" and asked.test_id is None:
        return next((at for at, count in counts if at > line.position and count <= 0), None)
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
