"""Findings: what of a bill somebody should look at, and which of its events say so.

Source: design, "Bill".
"""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from ledger.model.bill_history import History, LoggedEvent

CLOCK_TOLERANCE = 300
"""Seconds that a sender's clock may run before ours until an event counts as from the future."""


class Finding(Struct, frozen=True):
    """A code, what it means here, and the log positions of the events that it is about."""

    finding: str
    detail: str
    positions: list[int]


def findings(history: History) -> list[Finding]:
    """Return what is found, sorted by code."""
    found = (
        _completed_with_open_reports(history) if history.completions else None,
        _event_after_deletion(history) if history.deletions else None,
        _event_from_future(history),
        _integrator_changed(history),
        _report_completed_again(history),
    )
    return [one for one in found if one]


def _completed_with_open_reports(history: History) -> Finding | None:
    last = history.completions[-1]
    if len(last.completed) == len(last.tests):
        return None
    tests = sorted(last.tests.keys() - last.completed)
    detail = f"the newest bill.completed lists as not completed: {', '.join(tests)}"
    return Finding("completed_with_open_reports", detail, [last.position])


def _event_after_deletion(history: History) -> Finding | None:
    deleted_at = history.deletions[0].at
    late = [
        event for event in history.events if event.type != "bill.deleted" and event.at > deleted_at
    ]
    detail = "these happened after the bill was deleted"
    return Finding("event_after_deletion", detail, _positions(late)) if late else None


def _event_from_future(history: History) -> Finding | None:
    early = [event for event in history.events if event.delay < -CLOCK_TOLERANCE]
    if not early:
        return None
    detail = f"the eventTime is more than {CLOCK_TOLERANCE} s after the reception"
    return Finding("event_from_future", detail, _positions(early))


def _integrator_changed(history: History) -> Finding | None:
    if len(history.integrator_ids) < 2:  # noqa: PLR2004 -- one id is no change
        return None
    ids = dict.fromkeys(history.integrator_ids)
    named = [event for event in history.events if event.integrator_id]
    detail = f"the integrator ids are, oldest first: {', '.join(ids)}"
    return Finding("integrator_changed", detail, _positions(named))


def _report_completed_again(history: History) -> Finding | None:
    # What was sent again counts here: that it is no correction is for a person to see.
    resent = [event for event in history.resent if event.type == "report.completed"]
    if len(history.reports) + len(resent) <= len(history.reported):
        return None
    times = Counter(test for event in history.reports for test in event.completed)
    often = sorted(test for test, count in times.items() if count > 1)
    words = ["more report.completed than tests that they complete"]
    if len(history.reports) > len(history.reported):
        words.append(f"a report was corrected, perhaps of {', '.join(often)}: look at it")
    if resent:
        which = ", ".join(map(str, _positions(resent)))
        words.append(
            f"position {which} came by import and equals a webhook but for its eventTime: support "
            "sent it again, and it is no correction"
        )
    return Finding(
        "report_completed_again", "; ".join(words), _positions([*history.reports, *resent])
    )


def _positions(events: Iterable[LoggedEvent]) -> list[int]:
    return sorted(event.position for event in events)
