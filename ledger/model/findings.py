"""Findings: what somebody should look at in a bill, and the events that show it.

Source: docs/rules.md, "Findings". To add a finding: write a rule below whose name is the code with
an underscore before it, list it in `RULES`, describe it in docs/rules.md, and raise `FOLD_VERSION`.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct

from ledger.model.bill_history import BillHistory, LoggedEvent

CLOCK_TOLERANCE = 300
"""Seconds by which a sender's clock may be ahead of ours before an event is from the future."""


class Finding(Struct, frozen=True):
    """A code, a sentence about this bill, and the log positions of the events that show it."""

    finding: str
    detail: str
    positions: list[int]


def findings(history: BillHistory) -> list[Finding]:
    """Return the findings of a bill, sorted by code."""
    return [found for rule in RULES if (found := rule(history))]


def _completed_with_open_reports(history: BillHistory) -> Finding | None:
    if not history.completions:
        return None
    last = history.completions[-1]
    if len(last.completed) == len(last.tests):
        return None
    tests = sorted(last.tests.keys() - last.completed)
    detail = f"the newest bill.completed lists as not completed: {', '.join(tests)}"
    return Finding("completed_with_open_reports", detail, [last.position])


def _event_after_deletion(history: BillHistory) -> Finding | None:
    if not history.deletions:
        return None
    deleted_at = history.deletions[0].at
    late = [
        event for event in history.events if event.type != "bill.deleted" and event.at > deleted_at
    ]
    detail = "these events happened after the bill was deleted"
    return Finding("event_after_deletion", detail, _positions(late)) if late else None


def _event_from_future(history: BillHistory) -> Finding | None:
    early = [event for event in history.events if event.delay < -CLOCK_TOLERANCE]
    if not early:
        return None
    detail = f"the eventTime is more than {CLOCK_TOLERANCE} s later than the reception"
    return Finding("event_from_future", detail, _positions(early))


def _integrator_changed(history: BillHistory) -> Finding | None:
    if len(history.integrator_ids) < 2:  # noqa: PLR2004 -- one id is no change
        return None
    ids = dict.fromkeys(history.integrator_ids)
    named = [event for event in history.events if event.integrator_id]
    detail = f"the integrator ids are, oldest first: {', '.join(ids)}"
    return Finding("integrator_changed", detail, _positions(named))


def _report_completed_again(history: BillHistory) -> Finding | None:
    if not history.reports and not history.resent:
        return None
    # Resent events count here: a person must see that they are no correction.
    resent = [event for event in history.resent if event.type == "report.completed"]
    if len(history.reports) + len(resent) <= len(history.reported):
        return None
    times = Counter(test for event in history.reports for test in event.completed)
    often = sorted(test for test, count in times.items() if count > 1)
    sentences = ["there are more report.completed events than tests that they complete"]
    if len(history.reports) > len(history.reported):
        sentences.append(f"a report was corrected, perhaps of {', '.join(often)}: look at it")
    if resent:
        which = ", ".join(map(str, _positions(resent)))
        sentences.append(
            f"position {which} was imported and differs from a webhook only in its eventTime: "
            "support sent it again, and it is no correction"
        )
    return Finding(
        "report_completed_again", "; ".join(sentences), _positions([*history.reports, *resent])
    )


def _positions(events: Iterable[LoggedEvent]) -> list[int]:
    return sorted(event.position for event in events)


RULES: tuple[Callable[[BillHistory], Finding | None], ...] = (
    _completed_with_open_reports,
    _event_after_deletion,
    _event_from_future,
    _integrator_changed,
    _report_completed_again,
)
"""In the order of their codes."""
