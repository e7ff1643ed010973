"""Folds the events of one bill into its state. There is no second definition of state.

Source: docs/rules.md, "Reports" and "Bills". Which event is newer is decided in `bill_history`, a
report's `completed_at` in `_completion_evidence` below, the bill's `state` in `_state`, findings in
`findings`, missing events in `missing_events`, and the effect of operators' decisions in
`request_lines`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from ledger.model.bill_history import BillHistory, LoggedEvent, history_of
from ledger.model.event import is_completed
from ledger.model.findings import findings
from ledger.model.missing_events import MissingEvent, missing_events
from ledger.model.operator_events import LoggedDecision
from ledger.model.request_lines import Line, apply_decisions

FOLD_VERSION = 3
"""Raise it whenever the same events would give another state, words included, or the state tables
get another shape. State of another version is served but not updated until `ledger rebuild`."""

State = Literal["open", "completed", "reopened", "deleted"]


class Report(Struct, frozen=True, gc=False):
    """One test of a bill. `evidence` is the type of the event that decided `completed_at` (UTC)."""

    test_id: str
    status: str | None
    completed_at: datetime | None
    evidence: str | None


class BillSummary(Struct, frozen=True, gc=False):
    """A bill without its reports. Times are UTC.

    `events` is the number of its distinct events, `position` the last of its positions in the log.
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


class Bill(Struct, frozen=True, gc=False):
    """The state of a bill. Reports and missing events are sorted by test.

    `lines` are the lines of support requests about this bill, by request. `former_integrators` are
    the integrator ids of earlier events that the bill no longer has.
    """

    summary: BillSummary
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
    """Fold the events of one bill: at least one, in any order, none of them twice.

    `decisions` are the operators' decisions about this bill, in any order.
    """
    history = history_of(events)
    integrator_id = history.integrator_ids[-1] if history.integrator_ids else None
    reports = _reports(history)
    not_completed = {report.test_id for report in reports if not report.evidence}
    received = [event.received_at for event in events]
    positions = [event.position for event in events]
    positions += [decided.position for decided in decisions]
    summary = BillSummary(
        lab_id=lab_id,
        bill_id=bill_id,
        integrator_id=integrator_id,
        state=_state(history, not_completed),
        flabs_status=history.flabs_status,
        created_at=_from_unix(history.creations[0].at) if history.creations else None,
        completed_at=_from_unix(history.completions[-1].at) if history.completions else None,
        deleted_at=_from_unix(history.deletions[0].at) if history.deletions else None,
        report_url=history.report_url,
        reports_total=len(reports),
        reports_completed=len(reports) - len(not_completed),
        findings=[found.finding for found in findings(history)],
        events=len(events),
        first_received_at=min(received),
        last_received_at=max(received),
        last_event_at=_from_unix(history.events[-1].at),
        position=max(positions),
    )
    missing = [] if history.deletions else missing_events(history)
    lines: list[Line] = []
    if decisions:
        missing, lines = apply_decisions(history, missing, decisions)
    return Bill(
        summary=summary,
        reports=reports,
        missing_events=missing,
        lines=lines,
        former_integrators=_former_integrators(history.integrator_ids),
    )


def _former_integrators(integrator_ids: list[str]) -> list[str]:
    *former, last = integrator_ids or [""]
    return sorted({*former} - {last}) if former else []


def _reports(history: BillHistory) -> list[Report]:
    evidence = _completion_evidence(history)
    reports = []
    for test, status in sorted(history.statuses.items()):
        if status == "completed" or is_completed(status):
            event = evidence[test]
            reports.append(Report(test, status, _from_unix(event.at), event.type))
        else:
            reports.append(Report(test, status, None, None))
    return reports


def _completion_evidence(history: BillHistory) -> dict[str, LoggedEvent]:
    """Return, by test, the event whose time is the report's `completed_at`."""
    evidence: dict[str, LoggedEvent] = {}
    # The best evidence first, and within a type the oldest.
    for events in (history.reports, history.completions, history.creations, history.deletions):
        if len(evidence) == len(history.statuses):
            break
        for event in events:
            for test in event.completed:
                evidence.setdefault(test, event)
    return evidence


def _state(history: BillHistory, not_completed: set[str]) -> State:
    if history.deletions:
        return "deleted"
    if not history.completions:
        return "open"
    if not_completed:
        last = history.completions[-1].moment
        for event in history.events:
            if event.moment > last and not_completed & event.tests.keys():
                return "reopened"
    return "completed"


def _from_unix(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
