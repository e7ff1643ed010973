"""What operators' decisions make of a bill's missing events, and what came of the lines they asked.

A line is settled by the event that it asked for, whoever sent it, and whatever else was decided.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from ledger.model.decision import EventClosed, EventRequested, EventWaived, LoggedDecision
from ledger.model.history import Fact, History
from ledger.model.missing import MissingEvent

LineState = Literal["requested", "received", "closed"]

Settled = tuple[list[MissingEvent], list["Line"]]


class Line(Struct, frozen=True):
    """A missing event that was asked for.

    `received_position` is where in the log the event stands that came, `reason` why a line is
    closed that none answered.
    """

    asked: EventRequested
    state: LineState
    received_position: int | None = None
    reason: str | None = None


def settle(
    history: History, missing: list[MissingEvent], decisions: Sequence[LoggedDecision]
) -> Settled:
    """Return the missing events with what was decided about them, and the lines by request."""
    waived, asked, closed = _sorted_out(decisions)
    lines = [_line(line, history, missing, asked, closed) for line in asked]
    return [_decided(one, waived, asked, closed) for one in missing], lines


def _sorted_out(
    decisions: Sequence[LoggedDecision],
) -> tuple[list[EventWaived], list[EventRequested], dict[tuple[int, tuple[str, str]], EventClosed]]:
    waived: list[EventWaived] = []
    asked: dict[tuple[int, tuple[str, str]], EventRequested] = {}
    closed: dict[tuple[int, tuple[str, str]], EventClosed] = {}
    for logged in sorted(decisions, key=lambda logged: logged.position):
        decision = logged.decision
        if isinstance(decision, EventWaived):
            waived.append(decision)
        elif isinstance(decision, EventRequested):
            asked.setdefault((decision.request, decision.subject), decision)
        elif isinstance(decision, EventClosed):
            closed.setdefault((decision.request, decision.subject), decision)
    return waived, [asked[name] for name in sorted(asked)], closed


def _decided(
    missing: MissingEvent,
    waived: list[EventWaived],
    asked: list[EventRequested],
    closed: dict[tuple[int, tuple[str, str]], EventClosed],
) -> MissingEvent:
    # What was decided about fewer does not cover what is missing more since.
    waivers = [
        one.at
        for one in (*waived, *closed.values())
        if one.subject == missing.subject and one.expected >= missing.expected
    ]
    lines = [
        line
        for line in asked
        if line.subject == missing.subject and line.expected >= missing.expected
    ]
    if not waivers and not lines:
        return missing
    return msgspec.structs.replace(
        missing,
        request=lines[-1].request if lines else None,
        requested_at=lines[-1].at if lines else None,
        waived_at=min(waivers, default=None),
    )


def _line(
    line: EventRequested,
    history: History,
    missing: list[MissingEvent],
    asked: list[EventRequested],
    closed: dict[tuple[int, tuple[str, str]], EventClosed],
) -> Line:
    came = _answers(line, history)
    if len(came) >= line.expected:
        return Line(line, "received", received_position=came[line.expected - 1])
    if closing := closed.get((line.request, line.subject)):
        return Line(line, "closed", reason=closing.reason)
    if again := [
        other.request
        for other in asked
        if other.subject == line.subject and other.request > line.request
    ]:
        return Line(line, "closed", reason=f"asked for again in request {again[0]}")
    if history.deletions:
        return Line(line, "closed", reason="the bill was deleted")
    if all(one.subject != line.subject for one in missing):
        return Line(line, "closed", reason="what came since shows that it was not sent yet")
    return Line(line, "requested")


def _answers(line: EventRequested, history: History) -> list[int]:
    """Return the positions of the events that are what was asked for, in order."""
    facts: list[Fact]
    if line.event_type == "bill.created":
        facts = history.creations
    elif line.event_type == "bill.completed":
        facts = history.completions
    elif line.event_type == "bill.deleted":
        facts = history.deletions
    elif line.test_id is None:
        facts = history.reports
    else:
        facts = [fact for fact in history.reports if line.test_id in fact.completed]
    return sorted(fact.position for fact in facts)
