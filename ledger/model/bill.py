"""The fold: the events of one bill in, its state out. There is no second definition of state.

Source: design, "Report", "Bill". What the events prove missing is in `missing.py`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from operator import itemgetter
from typing import Literal

from msgspec import Struct

from ledger.model.history import Fact, LoggedEvent, in_order
from ledger.model.missing import MissingEvent, missing_events

FOLD_VERSION = 1
"""Grows when the same events give another state, or the state tables another shape. State of
another version is served as it is and not written to until `ledger rebuild` has made it anew."""

CLOCK_TOLERANCE = 300
"""Seconds that a sender's clock may run before ours until an event counts as from the future."""

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
    """All that the events of a bill say: reports sorted by test, missing events likewise."""

    summary: Summary
    reports: list[Report]
    missing_events: list[MissingEvent]


def fold(lab_id: str, bill_id: str, events: list[LoggedEvent]) -> Bill:
    """Fold the events of one bill, at least one, given in any order, each of them once."""
    facts = in_order(events)
    newest_mention = {test: fact for fact in facts for test in fact.tests}
    reports = _reports(facts, newest_mention)
    created = [fact.at for fact in facts if fact.type == "bill.created"]
    completions = [fact for fact in facts if fact.type == "bill.completed"]
    deleted = [fact.at for fact in facts if fact.type == "bill.deleted"]
    flabs_status = _newest(fact.status for fact in facts)
    summary = Summary(
        lab_id=lab_id,
        bill_id=bill_id,
        integrator_id=_newest(fact.integrator_id for fact in facts),
        state=_state(bool(deleted), completions, newest_mention),
        flabs_status=flabs_status,
        created_at=_utc(min(created, default=None)),
        completed_at=_utc(completions[-1].at if completions else None),
        deleted_at=_utc(min(deleted, default=None)),
        report_url=_newest(fact.report_url for fact in facts),
        reports_total=len(reports),
        reports_completed=sum([report.evidence is not None for report in reports]),
        findings=_findings(facts, completions, min(deleted, default=None)),
        events=len(facts),
        first_received_at=min(fact.received_at for fact in facts),
        last_received_at=max(fact.received_at for fact in facts),
        last_event_at=_from_unix(facts[-1].at),
        position=max(fact.position for fact in facts),
    )
    missing = [] if deleted else missing_events(facts, flabs_status, reports)
    return Bill(summary=summary, reports=reports, missing_events=missing)


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
            reports.append(Report(test, status, _utc(completed_at[evidence][test]), evidence))
        else:
            reports.append(Report(test, status, None, None))
    return reports


def _state(
    deleted: bool,  # noqa: FBT001 -- private, called once
    completions: list[Fact],
    newest_mention: dict[str, Fact],
) -> State:
    if deleted:
        return "deleted"
    if not completions:
        return "open"
    last = completions[-1].moment
    reopened = any(
        test not in fact.completed and fact.moment > last for test, fact in newest_mention.items()
    )
    return "reopened" if reopened else "completed"


def _findings(facts: list[Fact], completions: list[Fact], deleted_at: int | None) -> list[str]:
    """Return the codes of what somebody should look at, sorted."""
    integrators = {fact.integrator_id for fact in facts if fact.integrator_id}
    reports = [fact for fact in facts if fact.type == "report.completed"]
    tests = frozenset[str]().union(*(fact.completed for fact in reports))
    found = {
        "completed_with_open_reports": bool(completions)
        and len(completions[-1].completed) < len(completions[-1].tests),
        "event_after_deletion": deleted_at is not None
        and any(fact.type != "bill.deleted" and fact.at > deleted_at for fact in facts),
        "event_from_future": any(
            fact.at - fact.received_at.timestamp() > CLOCK_TOLERANCE for fact in facts
        ),
        "integrator_changed": len(integrators) > 1,
        "report_completed_again": len(reports) > len(tests),
    }
    return sorted(code for code, is_so in found.items() if is_so)


def _newest(values: Iterable[str | None]) -> str | None:
    """Return the last value that says something."""
    newest = None
    for value in values:
        newest = value or newest
    return newest


def _utc(seconds: int | None) -> datetime | None:
    return None if seconds is None else _from_unix(seconds)


def _from_unix(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
