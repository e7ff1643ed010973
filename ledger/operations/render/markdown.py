"""The Markdown format of a report: a head, then a section for each lab that can be sent alone."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import BinaryIO

from msgspec import Struct, field

from ledger.operations.coverage import CoverageFinding
from ledger.operations.read_models import (
    LabSilence,
    LabTotals,
    LossWindow,
    MissingEventItem,
    MissingEvents,
    NearLoss,
    ReconciliationReport,
    SinceLastRun,
    UnseenBill,
)
from ledger.operations.render.markup import SUBJECT, code, head, row, subject, write_parts
from ledger.operations.render.words import (
    STATES,
    clock,
    count,
    happened,
    headline,
    how_known,
    labs_of,
    lasting,
    only_possible,
    registration,
    up_to,
    utc,
)

_MISSING_EVENTS = (*SUBJECT, "Certainty", "How many", "State", "Due", "Happened", "How we know")
_LATE = (
    "Day",
    "Deliveries",
    "By attempt",
    "Not clear",
    "On the last attempt",
    "Our clock is ahead by",
)


class _LabFindings(Struct):
    """What is known about a lab besides its missing events."""

    windows: list[LossWindow] = field(default_factory=list)
    unseen: list[UnseenBill] = field(default_factory=list)
    coverage: list[CoverageFinding] = field(default_factory=list)
    late: list[NearLoss] = field(default_factory=list)
    silences: list[LabSilence] = field(default_factory=list)


def write_report_markdown(
    report: ReconciliationReport,
    missing_events: MissingEvents,
    to: BinaryIO,
    *,
    since: SinceLastRun | None,
) -> None:
    """Write a report, with the missing events of each lab in the lab's section."""
    possible: Counter[str] = Counter()
    counted = _counted(missing_events, possible)
    parts = chain(_head(report, since), _sections(report, counted), _left_out(possible))
    write_parts(parts, to)


def _counted(items: MissingEvents, possible: Counter[str]) -> Iterator[MissingEventItem]:
    for item in items:
        if item.certainty == "possible":
            possible[item.state] += 1
        yield item


def _left_out(possible: Counter[str]) -> Iterator[str]:
    """Say, once all missing events are written, what a support request leaves out by default."""
    if possible["overdue"]:
        yield f"\n{only_possible(possible['overdue'])}\n"


def _head(report: ReconciliationReport, since: SinceLastRun | None) -> Iterator[str]:
    yield "# Reconciliation: events that never arrived\n\n"
    yield f"{headline(report, since)}\n\n"
    yield f"As of {utc(report.as_of)}, log position {report.position}. All times are UTC.\n\n"
    if not since:  # which leaves the totals of what is not new unknown
        yield head(("State", "Missing events"))
        for state, words in STATES.items():
            yield row((words, f"{report.totals.get(state, 0):,}"))
        yield row(("all", f"{sum(report.totals.values()):,}"))
    if report.labs:
        yield f"\n{head(('Lab (labID)', 'Overdue', 'Requested', 'Awaiting retry', 'Oldest due'))}"
    for lab in report.labs:
        oldest = clock(lab.oldest_due_at) if lab.oldest_due_at else ""
        numbers = [f"{number:,}" for number in (lab.overdue, lab.requested, lab.awaiting_retry)]
        yield row((code(lab.lab_id), *numbers, oldest))


def _sections(report: ReconciliationReport, missing_events: MissingEvents) -> Iterator[str]:
    findings = _by_lab(report)
    for lab_id, totals, items in _with_items(report.labs, missing_events):
        yield from _section(report, lab_id, totals, items, findings.pop(lab_id, _LabFindings()))
    unknown = findings.pop(None, None)
    for other, rest in findings.items():
        yield from _section(report, other, None, (), rest)
    if unknown:
        yield from _section(report, None, None, (), unknown)


def _by_lab(report: ReconciliationReport) -> dict[str | None, _LabFindings]:
    labs: dict[str | None, _LabFindings] = {}
    for window in report.loss_windows:
        for lab_id in labs_of(window):
            labs.setdefault(lab_id, _LabFindings()).windows.append(window)
    for bill in report.unseen_bills:
        labs.setdefault(bill.lab_id, _LabFindings()).unseen.append(bill)
    for near_loss in report.near_losses:
        if any(near_loss.attempts[1:]):
            labs.setdefault(near_loss.lab_id, _LabFindings()).late.append(near_loss)
    for silence in report.silences:
        labs.setdefault(silence.lab_id, _LabFindings()).silences.append(silence)
    for found in report.coverage or ():
        labs.setdefault(found.lab_id, _LabFindings()).coverage.append(found)
    return labs


def _with_items(
    labs: Iterable[LabTotals], missing_events: MissingEvents
) -> Iterator[tuple[str, LabTotals | None, Iterable[MissingEventItem]]]:
    """Yield each lab with its missing events as they come; both are in the same order."""
    waiting = {lab.lab_id: lab for lab in labs}
    for lab_id, items in groupby(missing_events, key=lambda item: item.lab_id):
        while waiting and lab_id in waiting and (first := next(iter(waiting))) != lab_id:
            yield first, waiting.pop(first), ()
        yield lab_id, waiting.pop(lab_id, None), items
    for lab_id, lab in waiting.items():
        yield lab_id, lab, ()


def _section(
    report: ReconciliationReport,
    lab_id: str | None,
    totals: LabTotals | None,
    items: Iterable[MissingEventItem],
    findings: _LabFindings,
) -> Iterator[str]:
    name = "Lab not known" if lab_id is None else f"Lab {code(lab_id)} (labID)"
    yield f"\n## {name}\n\nAs of {utc(report.as_of)}, log position {report.position}"
    yield f": {_counts(totals, report)}\n" if totals else ".\n"
    yield from _table(
        "Events that must have been sent (certain) or may have been sent (possible) but did not "
        "reach us; names in brackets are the fields of the webhooks, times are UTC:",
        _MISSING_EVENTS,
        map(_missing_event, items),
    )
    yield from _table(
        "Loss windows, in which our endpoint could not receive anything; no event of this lab with "
        "an eventTime in them reached us:",
        ("From (UTC)", "To (UTC)", "State"),
        ((clock(w.begin), clock(up_to(w.end)), w.state) for w in findings.windows),
    )
    yield from _table(
        "Unseen bills, which were expected but of which no event has arrived:",
        ("Integrator (integratorID)", "Expected by (UTC)"),
        ((code(bill.integrator_id), clock(bill.expected_by)) for bill in findings.unseen),
    )
    yield from _table(
        "Near losses, events that did not reach us on the first attempt:",
        _LATE,
        map(_near_loss, findings.late),
    )
    yield from _table(
        "Silence, longer than usual for the time of the week:",
        ("State", "Last event received (UTC)", "Odds"),
        ((one.state, clock(one.last_heard_at), one.odds) for one in findings.silences),
    )
    yield from _table(
        "Registration at Flabs, which is not as it should be now:",
        ("What is wrong",),
        ((registration(found),) for found in findings.coverage),
    )


def _counts(lab: LabTotals, report: ReconciliationReport) -> str:
    counts = (
        f"{count(lab.overdue, 'missing event is', 'missing events are')} overdue, "
        f"{lab.requested:,} requested from support, {lab.awaiting_retry:,} awaiting retry."
    )
    if not lab.oldest_due_at:
        return counts
    return f"{counts} The oldest has been overdue for {lasting(report.as_of - lab.oldest_due_at)}."


def _table(intro: str, columns: tuple[str, ...], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Write a table if it has rows."""
    empty = True
    for cells in rows:
        if empty:
            yield f"\n{intro}\n\n{head(columns)}"
            empty = False
        yield row(cells)


def _missing_event(item: MissingEventItem) -> list[str]:
    state = item.state if item.request is None else f"{item.state} (request {item.request})"
    return [
        *subject(item),
        item.certainty,
        f"{item.count:,}",
        state,
        clock(item.due_at),
        happened(item),
        how_known(item, code),
    ]


def _near_loss(near_loss: NearLoss) -> list[str]:
    skew = near_loss.clock_skew_seconds
    return [
        f"{near_loss.day:%Y-%m-%d}",
        f"{near_loss.deliveries:,}",
        " / ".join(f"{number:,}" for number in near_loss.attempts),
        f"{near_loss.unclear:,}",
        f"{near_loss.last_attempt_share:.1%}",
        "not known" if skew is None else f"{skew} s",
    ]
