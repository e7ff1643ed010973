"""The fold: the events of one bill in, its state out. There is no second definition of state.

Source: design, "Report", "Bill". What the events prove missing is in `missing.py`, what operators
decided about that in `settlement.py`.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Literal

from msgspec import Struct

from ledger.model.decision import LoggedDecision
from ledger.model.findings import findings
from ledger.model.history import Fact, History, LoggedEvent, history_of
from ledger.model.missing import MissingEvent, missing_events
from ledger.model.settlement import Line, settle

FOLD_VERSION = 2
"""Grows when the same events give another state, or the state tables another shape. State of
another version is served as it is and not written to until `ledger rebuild` has made it anew."""

State = Literal["open", "completed", "reopened", "deleted"]
EVIDENCE = ("report.completed", "bill.completed", "bill.created", "bill.deleted")
"""Event types from the best to the least evidence of when a report was completed."""


class Report(Struct, frozen=True, gc=False):
    """One test of a bill. `completed_at` (UTC) and `evidence`, an event type, go together."""

    test_id: str
    status: str | None
    completed_at: datetime | None
    evidence: str | None


class Summary(Struct, frozen=True):
    """A bill without its reports. Times are UTC; `events` counts its distinct events.

    `position` is the last of the bill's positions in the log.
    """

    lab_id: str
    bill_id: str
    integrator_id: str | None
    state: State
    flabs_status: str | None
    created_at: datetime | None
    completed_at: datetime | None
    deleted_at: datetime | None
    report_url: str | None
    reports_total: int
    reports_completed: int
    findings: list[str]
    events: int
    first_received_at: datetime
    last_received_at: datetime
    last_event_at: datetime
    position: int


class Bill(Struct, frozen=True):
    """All that the events of a bill say: reports sorted by test, missing events likewise.

    `lines` are what support requests asked for, by request. `former_integrators` are the integrator
    ids that events had and the bill has no more.
    """

    summary: Summary
    reports: list[Report]
    missing_events: list[MissingEvent]
    lines: list[Line]
    former_integrators: list[str]


def fold(
    lab_id: str,
    bill_id: str,
    events: list[LoggedEvent],
    decisions: Sequence[LoggedDecision] = (),
) -> Bill:
    """Fold the events of one bill, at least one, given in any order, each of them once.

    `decisions` are what operators decided about it, in any order.
    """
    history = history_of(events)
    facts = history.facts
    newest_mention = {test: fact for fact in facts for test in fact.tests}
    reports = _reports(facts, newest_mention)
    flabs_status = _newest([fact.status for fact in facts])
    summary = Summary(
        lab_id=lab_id,
        bill_id=bill_id,
        integrator_id=_newest([fact.integrator_id for fact in facts]),
        state=_state(history, newest_mention),
        flabs_status=flabs_status,
        created_at=_from_unix(history.creations[0].at) if history.creations else None,
        completed_at=_from_unix(history.completions[-1].at) if history.completions else None,
        deleted_at=_from_unix(history.deletions[0].at) if history.deletions else None,
        report_url=_newest([fact.report_url for fact in facts]),
        reports_total=len(reports),
        reports_completed=len([report for report in reports if report.evidence]),
        findings=[found.finding for found in findings(history)],
        events=len(events),
        first_received_at=min([event.received_at for event in events]),
        last_received_at=max([event.received_at for event in events]),
        last_event_at=_from_unix(facts[-1].at),
        position=max(
            [event.position for event in events] + [decided.position for decided in decisions]
        ),
    )
    missing = [] if history.deletions else missing_events(history, flabs_status, reports)
    lines: list[Line] = []
    if decisions:
        missing, lines = settle(history, missing, decisions)
    return Bill(
        summary=summary,
        reports=reports,
        missing_events=missing,
        lines=lines,
        former_integrators=sorted(
            {fact.integrator_id for fact in facts if fact.integrator_id} - {summary.integrator_id}
        ),
    )


def _reports(facts: list[Fact], newest_mention: dict[str, Fact]) -> list[Report]:
    completed_at: dict[str, dict[str, int]] = {event_type: {} for event_type in EVIDENCE}
    for fact in facts:
        for test in fact.completed:  # oldest first, so the first one found stays
            completed_at[fact.type].setdefault(test, fact.at)
    reports = []
    for test, fact in sorted(newest_mention.items(), key=itemgetter(0)):
        status = fact.tests[test]
        if test in fact.completed:
            evidence = next(kind for kind in EVIDENCE if test in completed_at[kind])
            reports.append(Report(test, status, _from_unix(completed_at[evidence][test]), evidence))
        else:
            reports.append(Report(test, status, None, None))
    return reports


def _state(history: History, newest_mention: dict[str, Fact]) -> State:
    if history.deletions:
        return "deleted"
    if not history.completions:
        return "open"
    last = history.completions[-1].moment
    reopened = any(
        test not in fact.completed and fact.moment > last for test, fact in newest_mention.items()
    )
    return "reopened" if reopened else "completed"


def _newest(values: Iterable[str | None]) -> str | None:
    """Return the last value that says something."""
    newest = None
    for value in values:
        newest = value or newest
    return newest


def _from_unix(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
