"""What operators' decisions make of a bill's missing events, and what came of the lines they asked.

A line is settled by the event that it asked for, whoever sent it, and whatever else was decided. Of
reports whose tests are not known nobody can say which of them came: such a line is settled when
none is missing any more, if only for a while; what is missing after that is new. So what was
decided about them depends on the order of the log, in which decisions stand between events.
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
    EventWaived,
    LoggedDecision,
)

LineState = Literal["requested", "received", "closed"]

Settled = tuple[list[MissingEvent], list["Line"]]

Lacks = list[tuple[int, int]]
"""After which position how many reports of unknown tests were missing, in order of position."""


class Line(Struct, frozen=True):
    """A missing event that was asked for.

    `received_position` is where in the log the event stands that came, `reason` why a line is
    closed that none answered.
    """

    asked: EventRequested
    state: LineState
    received_position: int | None = None
    reason: str | None = None


class _Asked(Struct, frozen=True):
    """A line with its position in the log, and whether a decision put an end to it."""

    position: int
    decision: EventRequested
    closing: EventClosed | None
    again: int | None
    """The number of the request that asked for it again."""


def settle(
    history: History, missing: list[MissingEvent], decisions: Sequence[LoggedDecision]
) -> Settled:
    """Return the missing events with what was decided about them, and the lines by request."""
    ordered = sorted(decisions, key=attrgetter("position"))
    waivers = [one for one in ordered if isinstance(one.decision, (EventWaived, EventClosed))]
    asked = _lines(ordered)
    lacks = _lacks(history)
    return (
        [_decided(one, waivers, asked, lacks) for one in missing],
        [_line(line, history, missing, lacks) for line in asked],
    )


def _lines(ordered: list[LoggedDecision]) -> list[_Asked]:
    """Return the lines by request; of one that was logged twice the first counts."""
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
        _Asked(position, decision, closed.get(name), again.get(name))
        for name, (position, decision) in sorted(asked.items())
    ]


def _lacks(history: History) -> Lacks:
    """Follow, as the events came, how many reports the bill's reports proved to be missing."""
    reported: set[str] = set()
    lacks = []
    for count, event in enumerate(sorted(history.reports, key=attrgetter("position")), start=1):
        reported.update(event.completed)
        lacks.append((event.position, len(reported) - count))
    return lacks


def _decided(
    missing: MissingEvent, waivers: list[LoggedDecision], asked: list[_Asked], lacks: Lacks
) -> MissingEvent:
    waived = [one for one in waivers if one.decision.subject == missing.subject]
    lines = [
        line
        for line in asked
        if line.decision.subject == missing.subject
        and line.again is None
        and _left(line.position, line.decision, lacks)
    ]
    # A line that was closed counts by its closing; until then it had been asked.
    asked_count = sum(
        _left(line.position, line.decision, lacks) for line in lines if line.closing is None
    )
    waived_count, waived_at = 0, None
    for one in waived:
        waived_count += _left(one.position, one.decision, lacks)
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


def _left(position: int, decision: BillDecision, lacks: Lacks) -> int:
    """Return how many of those that a decision is about are still missing, at the most."""
    if decision.test_id is not None or decision.event_type != "report.completed":
        return decision.count
    least = min((lack for at, lack in lacks if at > position), default=decision.count)
    return max(0, min(decision.count, least))


def _line(line: _Asked, history: History, missing: list[MissingEvent], lacks: Lacks) -> Line:
    asked = line.decision
    answer = _answer(line, history, lacks)
    if answer is not None:
        return Line(asked, "received", received_position=answer)
    if line.closing:
        return Line(asked, "closed", reason=line.closing.reason)
    if line.again is not None:
        return Line(asked, "closed", reason=f"asked for again in request {line.again}")
    if history.deletions:
        return Line(asked, "closed", reason="the bill was deleted")
    if all(one.subject != asked.subject for one in missing):
        return Line(asked, "closed", reason="what came since shows that it was not sent yet")
    return Line(asked, "requested")


def _answer(line: _Asked, history: History, lacks: Lacks) -> int | None:
    """Return the position of the event that is what was asked for, None if there is none."""
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
