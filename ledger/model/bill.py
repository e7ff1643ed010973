"""The fold: the events of one bill in, its state out. There is no second definition of state.

Source: design, "Report", "Bill". What the events prove missing is in `missing.py`, what operators
decided about that in `settlement.py`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from ledger.model.bill_history import History, LoggedEvent, history_of
from ledger.model.event import is_completed
from ledger.model.findings import findings
from ledger.model.missing_events import MissingEvent, missing_events
from ledger.model.operator_events import LoggedDecision
from ledger.model.request_lines import Line, settle

FOLD_VERSION = 4
"""Grows when the same events give another state, or the state tables another shape. State of
another version is served as it is and not written to until `ledger rebuild` has made it anew."""

State = Literal["open", "completed", "reopened", "deleted"]


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
    integrator_id = history.integrator_ids[-1] if history.integrator_ids else None
    reports = _reports(history)
    not_completed = {report.test_id for report in reports if not report.evidence}
    received = [event.received_at for event in events]
    positions = [event.position for event in events]
    positions += [decided.position for decided in decisions]
    summary = Summary(
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
        missing, lines = settle(history, missing, decisions)
    return Bill(
        summary=summary,
        reports=reports,
        missing_events=missing,
        lines=lines,
        former_integrators=sorted({*history.integrator_ids[:-1]} - {integrator_id}),
    )


def _reports(history: History) -> list[Report]:
    proofs: dict[str, LoggedEvent] = {}
    # The best evidence first, and of one kind the oldest.
    for events in (history.reports, history.completions, history.creations, history.deletions):
        if len(proofs) == len(history.statuses):
            break
        for event in events:
            for test in event.completed:
                proofs.setdefault(test, event)
    reports = []
    for test, status in sorted(history.statuses.items()):
        if status == "completed" or is_completed(status):
            proof = proofs[test]
            reports.append(Report(test, status, _from_unix(proof.at), proof.type))
        else:
            reports.append(Report(test, status, None, None))
    return reports


def _state(history: History, not_completed: set[str]) -> State:
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
