"""Applies operators' decisions to a bill's missing events and settles the lines of its requests.

The event that a line asked for settles the line, whoever sent it and whatever else was decided.
Reports of unknown tests cannot be told apart, so a line that asks for them is settled once none is
missing any more, even if only for a while; those missing later are new. Decisions about them
therefore depend on their place among the events in the log.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Literal

import msgspec
from msgspec import Struct

from ledger.model.bill_history import History, LoggedEvent
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

Settled = tuple[list[MissingEvent], list["Line"]]

Lacks = list[tuple[int, int]]
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


class _AskedLine(Struct, frozen=True):
    """A line with its log position and the decision that closed it, if any."""

    position: int
    decision: EventRequested
    closing: EventClosed | None
    again: int | None
    """The number of the later request that asked for the same event again."""


def settle(
    history: History, missing: list[MissingEvent], decisions: Sequence[LoggedDecision]
) -> Settled:
    """Return the missing events with the decisions applied, and the lines sorted by request."""
    ordered = sorted(decisions, key=attrgetter("position"))
    waivers = _waivers_in_force(ordered)
    asked = _lines(ordered)
    lacks = _lacks(history)
    return (
        [_decided(one, waivers, asked, lacks) for one in missing],
        [_line(line, history, missing, waivers, lacks) for line in asked],
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


def _lines(ordered: list[LoggedDecision]) -> list[_AskedLine]:
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
        _AskedLine(position, decision, closed.get(name), again.get(name))
        for name, (position, decision) in sorted(asked.items())
    ]


def _lacks(history: History) -> Lacks:
    """Return how many reports the bill's reports proved missing, as the events came in."""
    reported: set[str] = set()
    lacks = []
    for count, event in enumerate(sorted(history.reports, key=attrgetter("position")), start=1):
        reported.update(event.completed)
        lacks.append((event.position, len(reported) - count))
    return lacks


def _decided(
    missing: MissingEvent, waivers: list[LoggedDecision], asked: list[_AskedLine], lacks: Lacks
) -> MissingEvent:
    waived = [one for one in waivers if one.decision.subject == missing.subject]
    lines = [
        line
        for line in asked
        if line.decision.subject == missing.subject
        and line.again is None
        and _left(line.position, line.decision, lacks)
    ]
    # A closed line counts through its closing.
    asked_count = sum(
        _left(line.position, line.decision, lacks) for line in lines if line.closing is None
    )
    waived_count = sum(_left(one.position, one.decision, lacks) for one in waived)
    waiver = _deciding_waiver(missing, waived, lacks)
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
    missing: MissingEvent, waivers: list[LoggedDecision], lacks: Lacks
) -> BillDecision | None:
    """Return the waiver with which all that is missing was waived, None if some of it is not."""
    count = 0
    for one in waivers:
        count += _left(one.position, one.decision, lacks)
        if count >= missing.count:
            return one.decision
    return None


def _left(position: int, decision: BillDecision, lacks: Lacks) -> int:
    """Return how many of the events that a decision covers can still be missing."""
    if decision.test_id is not None or decision.event_type != "report.completed":
        return decision.count
    least = min((lack for at, lack in lacks if at > position), default=decision.count)
    return max(0, min(decision.count, least))


def _line(
    line: _AskedLine,
    history: History,
    missing: list[MissingEvent],
    waivers: list[LoggedDecision],
    lacks: Lacks,
) -> Line:
    asked = line.decision
    answer = _answer(line, history, lacks)
    if answer is not None:
        return Line(asked, "received", received_position=answer)
    reason = _closing_reason(line, history, missing, waivers, lacks)
    return Line(asked, "closed", reason=reason) if reason else Line(asked, "requested")


def _closing_reason(
    line: _AskedLine,
    history: History,
    missing: list[MissingEvent],
    waivers: list[LoggedDecision],
    lacks: Lacks,
) -> str | None:
    """Return why an unanswered line is closed, None if the event is still asked for."""
    if line.closing:
        return line.closing.reason
    if line.again is not None:
        return f"asked for again in request {line.again}"
    if history.deletions:
        return "the bill was deleted"
    subject = line.decision.subject
    still_missing = next((one for one in missing if one.subject == subject), None)
    if still_missing is None:
        return "what came since shows that it was not sent yet"
    waived = [
        one
        for one in waivers
        if isinstance(one.decision, EventWaived) and one.decision.subject == subject
    ]
    waiver = _deciding_waiver(still_missing, waived, lacks)
    return f"waived: {waiver.reason}" if isinstance(waiver, EventWaived) else None


def _answer(line: _AskedLine, history: History, lacks: Lacks) -> int | None:
    """Return the position of the event that was asked for, None if it has not come."""
    asked = line.decision
    if asked.event_type == "report.completed" and asked.test_id is None:
        return next((at for at, lack in lacks if at > line.position and lack <= 0), None)
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
