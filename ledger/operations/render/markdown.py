"""The Markdown form of a report: a head, then a section per lab that can be sent alone."""

from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import BinaryIO

from msgspec import Struct, field

from ledger.operations.read_models import (
    LabTotals,
    LossWindow,
    MissingEventItem,
    MissingEvents,
    NearLoss,
    Report,
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


class _Beside(Struct):
    """What is known of a lab beside its missing events."""

    windows: list[LossWindow] = field(default_factory=list)
    unseen: list[UnseenBill] = field(default_factory=list)
    late: list[NearLoss] = field(default_factory=list)


def write_report_markdown(report: Report, missing_events: MissingEvents, to: BinaryIO) -> None:
    """Write a report, the missing events of a lab in the lab's section."""
    write_parts(chain(_head(report), _sections(report, missing_events)), to)


def _head(report: Report) -> Iterator[str]:
    yield "# Reconciliation: events that never came\n\n"
    yield f"{headline(report)}\n\n"
    yield f"As of {utc(report.as_of)}, log position {report.position}. All times are UTC.\n\n"
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


def _sections(report: Report, missing_events: MissingEvents) -> Iterator[str]:
    beside = _by_lab(report)
    for lab_id, totals, items in _with_items(report.labs, missing_events):
        yield from _section(report, lab_id, totals, items, beside.pop(lab_id, _Beside()))
    unknown = beside.pop(None, None)
    for other, rest in beside.items():
        yield from _section(report, other, None, (), rest)
    if unknown:
        yield from _section(report, None, None, (), unknown)


def _by_lab(report: Report) -> dict[str | None, _Beside]:
    labs: dict[str | None, _Beside] = {}
    for window in report.loss_windows:
        for lab_id in labs_of(window):
            labs.setdefault(lab_id, _Beside()).windows.append(window)
    for bill in report.unseen_bills:
        labs.setdefault(bill.lab_id, _Beside()).unseen.append(bill)
    for near_loss in report.near_losses:
        if any(near_loss.attempts[1:]):
            labs.setdefault(near_loss.lab_id, _Beside()).late.append(near_loss)
    return labs


def _with_items(
    labs: Iterable[LabTotals], missing_events: MissingEvents
) -> Iterator[tuple[str, LabTotals | None, Iterable[MissingEventItem]]]:
    """Give each lab its missing events as they come, for both are in the same order."""
    waiting = {lab.lab_id: lab for lab in labs}
    for lab_id, items in groupby(missing_events, key=lambda item: item.lab_id):
        while waiting and lab_id in waiting and (first := next(iter(waiting))) != lab_id:
            yield first, waiting.pop(first), ()
        yield lab_id, waiting.pop(lab_id, None), items
    for lab_id, lab in waiting.items():
        yield lab_id, lab, ()


def _section(
    report: Report,
    lab_id: str | None,
    totals: LabTotals | None,
    items: Iterable[MissingEventItem],
    beside: _Beside,
) -> Iterator[str]:
    name = "Lab not known" if lab_id is None else f"Lab {code(lab_id)} (labID)"
    yield f"\n## {name}\n\nAs of {utc(report.as_of)}, log position {report.position}"
    yield f": {_counts(totals, report)}\n" if totals else ".\n"
    yield from _table(
        "Events that must have been sent (certain) or may have been sent (possible), and did not "
        "reach us; names in brackets are the fields of the webhooks, times are UTC:",
        _MISSING_EVENTS,
        map(_missing_event, items),
    )
    yield from _table(
        "Loss windows, in which our endpoint could not receive anything: no event of this lab with "
        "eventTime in them reached us, whatever there was:",
        ("From (UTC)", "To (UTC)", "State"),
        ((clock(w.begin), clock(up_to(w.end)), w.state) for w in beside.windows),
    )
    yield from _table(
        "Unseen bills, which were expected and of which no event has come:",
        ("Integrator (integratorID)", "Expected by (UTC)"),
        ((code(bill.integrator_id), clock(bill.expected_by)) for bill in beside.unseen),
    )
    yield from _table(
        "Near losses, events that did not reach us on the first attempt:",
        _LATE,
        map(_near_loss, beside.late),
    )


def _counts(lab: LabTotals, report: Report) -> str:
    counts = (
        f"{count(lab.overdue, 'missing event is', 'missing events are')} overdue, "
        f"{lab.requested:,} requested from support, {lab.awaiting_retry:,} awaiting retry."
    )
    if not lab.oldest_due_at:
        return counts
    return f"{counts} The oldest is overdue for {lasting(report.as_of - lab.oldest_due_at)}."


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
