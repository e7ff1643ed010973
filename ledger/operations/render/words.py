"""Words and figures that the forms for people share."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ledger.model.missing_events import MissingState
from ledger.operations.read_models import LossWindow, MissingEventItem, Report, RequestLine

STATES: dict[MissingState, str] = {
    "overdue": "overdue: will not come by itself",
    "requested": "requested from support",
    "awaiting_retry": "awaiting retry: may still come by itself",
    "waived": "waived by an operator",
}
"""The states of a missing event, in the order in which they matter."""

_SECOND = timedelta(seconds=1)
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def shown(text: str, unsafe: str = "") -> str:
    """Return a text as people can read it and tell it from any other.

    What holds a character that cannot be seen, or one of `unsafe`, is shown as a JSON string with
    that character escaped; so is what begins like one, or with space at an end.
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
    """Return a time in UTC to the second, rounded down, where something else says the zone."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def up_to(at: datetime) -> datetime:
    """Return the end of a window rounded up to the second, so that no part of it goes unasked."""
    return at if not at.microsecond else at.replace(microsecond=0) + _SECOND


def lasting(duration: timedelta) -> str:
    """Return a duration in its two greatest units: "2 days 4 hours"."""
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
    """Return the labs of a window; one without any is not to be left out where labs are listed."""
    labs: list[str | None] = [*window.labs]
    return labs or [None]


def headline(report: Report) -> str:
    """Return the most important thing to know, as a sentence."""
    overdue = report.totals.get("overdue", 0)
    if overdue:
        labs = [lab for lab in report.labs if lab.overdue]
        oldest = min((lab.oldest_due_at for lab in labs if lab.oldest_due_at), default=None)
        since = f", the oldest for {lasting(report.as_of - oldest)}" if oldest else ""
        events = count(overdue, "event is", "events are")
        parts = [f"{events} overdue in {count(len(labs), 'lab')}{since}"]
    else:
        parts = ["No event is overdue"]
    if requested := report.totals.get("requested", 0):
        parts.append(f"{count(requested, 'is', 'are')} requested from support")
    if windows := sum(window.state == "open" for window in report.loss_windows):
        parts.append(f"{count(windows, 'loss window is', 'loss windows are')} open")
    if unseen := len(report.unseen_bills):
        parts.append(f"{count(unseen, 'expected bill is', 'expected bills are')} unseen")
    return "; ".join(parts) + "."


Missing = MissingEventItem | RequestLine


def happened(missing: Missing) -> str:
    """Say when it must have happened, as closely as the evidence tells."""
    at = utc(missing.evidence.event_time)
    match missing.event_type, missing.test_id:
        case "bill.created", _:
            return f"at or before {at}"
        case "report.completed", str():
            return f"at or before {at}"
        case "report.completed", None:
            return f"up to about {at}"
        case _:
            return f"about {at}"


def how_known(missing: Missing, mark: Callable[[str], str]) -> str:
    """Say what tells of it, beside what `happened` says; `mark` sets event types apart."""
    evidence = mark(missing.evidence.event_type)
    match missing.event_type, missing.test_id, missing.certainty:
        case "report.completed", None, _:
            return (
                f"the {mark('report.completed')} events of this bill that reached us, the last "
                "with that eventTime, are fewer than the tests that they list as completed"
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
