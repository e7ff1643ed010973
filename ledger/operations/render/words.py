"""Wording and figures shared by the formats that people read."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ledger.model.coverage import FINDINGS
from ledger.model.missing_events import MissingState
from ledger.operations.coverage import CoverageFinding
from ledger.operations.read_models import (
    LossWindow,
    MissingEventItem,
    ReconciliationReport,
    RequestItem,
    RequestLine,
    SinceLastRun,
    SupportRequest,
)

STATES: dict[MissingState, str] = {
    "overdue": "overdue: will not come by itself",
    "requested": "requested from support",
    "awaiting_retry": "awaiting retry: may still come by itself",
    "waived": "waived by an operator",
}
"""The states of a missing event, the most important first."""

_SECOND = timedelta(seconds=1)
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def registration(found: CoverageFinding) -> str:
    """Say what is wrong with a lab's registration at Flabs."""
    words = FINDINGS[found.finding]
    return f"{words}: without {', '.join(found.events)}" if found.events else words


def shown(text: str, unsafe: str = "") -> str:
    """Return a text so that people can read it and cannot confuse it with another.

    A text with an invisible character or one of `unsafe` is shown as a JSON string with that
    character escaped. So is a text that begins like a JSON string or has space at either end.
    """
    if (
        text.isprintable()
        and text == text.strip()
        and not text.startswith('"')
        and not any(c in text for c in unsafe)
    ):
        return text
    return "".join(
        c if c.isprintable() and c not in unsafe else _escape(c)
        for c in json.dumps(text, ensure_ascii=False)
    )


def utc(at: datetime) -> str:
    """Return a time to the second, rounded down, with its zone."""
    return f"{clock(at)} UTC"


def clock(at: datetime) -> str:
    """Return a time in UTC to the second, rounded down, without its zone."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def up_to(at: datetime) -> datetime:
    """Return the end of a window rounded up to the second, so that all of it is asked for."""
    return at if not at.microsecond else at.replace(microsecond=0) + _SECOND


def lasting(duration: timedelta) -> str:
    """Return a duration in its two largest units: "2 days 4 hours"."""
    left = max(int(duration.total_seconds()), 0)
    parts = []
    for unit, seconds in _UNITS:
        number, left = divmod(left, seconds)
        if number:
            parts.append(count(number, unit))
        elif parts:
            break
    return " ".join(parts[:2]) or "less than a second"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: "1 event", "2,000 events"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def labs_of(window: LossWindow) -> list[str | None]:
    """Return a window's labs, or a single None, so that a list by lab leaves no window out."""
    labs: list[str | None] = [*window.labs]
    return labs or [None]


def headline(report: ReconciliationReport, since: SinceLastRun | None = None) -> str:
    """Return the most important finding as a sentence; with `since`, about what is new."""
    overdue = report.totals.get("overdue", 0)
    if since and not overdue:
        parts = [f"Nothing new is overdue since {utc(since.last_run)}", _overdue_before(since)]
    elif overdue:
        labs = [lab for lab in report.labs if lab.overdue]
        oldest = min((lab.oldest_due_at for lab in labs if lab.oldest_due_at), default=None)
        longest = f", the oldest for {lasting(report.as_of - oldest)}" if oldest else ""
        new = "new event" if since else "event"
        events = count(overdue, f"{new} is", f"{new}s are")
        parts = [f"{events} overdue in {count(len(labs), 'lab')}{longest}"]
    else:
        parts = ["No event is overdue"]
    if since and overdue:
        parts.append(f"{count(since.overdue, 'event is', 'events are')} overdue in all")
    if requested := report.totals.get("requested", 0):
        parts.append(f"{count(requested, 'is', 'are')} requested from support")
    if windows := sum(window.state == "open" for window in report.loss_windows):
        parts.append(f"{count(windows, 'loss window is', 'loss windows are')} open")
    if unseen := len(report.unseen_bills):
        parts.append(f"{count(unseen, 'expected bill is', 'expected bills are')} unseen")
    return "; ".join(parts) + "."


def _overdue_before(since: SinceLastRun) -> str:
    if not since.overdue:
        return "no event is overdue at all"
    return f"{count(since.overdue, 'event', 'events')} overdue in all {_were(since.overdue)}"


def _were(number: int) -> str:
    return "was reported before" if number == 1 else "were reported before"


def has_news(report: ReconciliationReport) -> bool:
    """Return whether a report on what is new has anything to report."""
    return bool(report.totals.get("overdue", 0) or report.loss_windows or report.unseen_bills)


def only_possible(number: int) -> str:
    """Return a sentence on overdue events that a support request leaves out by default."""
    events = count(number, "possible event is", "possible events are")
    asked = "it is asked for" if number == 1 else "they are asked for"
    return f"{events} overdue; {asked} only with --include-possible."


Missing = MissingEventItem | RequestLine


def happened(missing: Missing) -> str:
    """Return when the event must have happened, as closely as the evidence shows."""
    at = utc(missing.evidence.event_time)
    match missing.event_type, missing.test_id:
        case "bill.created", _:
            return f"at or before {at}"
        case "report.completed", str():
            return f"at or before {at}"
        case "report.completed", None:
            return f"no later than about {at}"
        case _:
            return f"about {at}"


def how_known(missing: Missing, mark: Callable[[str], str]) -> str:
    """Return what the evidence is, besides what `happened` returns; `mark` marks up event types."""
    evidence = mark(missing.evidence.event_type)
    match missing.event_type, missing.test_id, missing.certainty:
        case "report.completed", None, _:
            return (
                f"fewer {mark('report.completed')} events of this bill reached us, the last with "
                "that eventTime, than they list tests as completed"
            )
        case "report.completed", _, _:
            return f"a {evidence} with that eventTime lists this test as completed"
        case "bill.completed", _, "certain":
            return f"a {evidence} with that eventTime says that the bill is completed"
        case "bill.completed", _, _:
            return (
                f"all tests of this bill are completed; the last {evidence} that reached us has "
                "that eventTime"
            )
        case _:
            return f"a {evidence} of this bill with that eventTime reached us"


def _escape(character: str) -> str:
    if character.isascii():  # which json.dumps need not escape
        return f"\\u{ord(character):04x}"
    return json.dumps(character)[1:-1]


def made_by(request: RequestItem | SupportRequest) -> str:
    """Return who made a request, with the API key that proves it."""
    key = request.made_by_key
    return f"{request.made_by} (key {key})" if key else request.made_by
