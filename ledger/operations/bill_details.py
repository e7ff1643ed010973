"""Everything known of one bill, folded from its events in the log at the moment of the question."""

from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter

from msgspec import Struct
from psycopg import Connection

from ledger.errors import UnknownSubjectError
from ledger.eventlog import read
from ledger.eventlog.append import Source
from ledger.eventlog.read import LogRow
from ledger.model.bill import BillSummary, Report, fold
from ledger.model.bill_history import LoggedEvent, history_of
from ledger.model.event import Event
from ledger.model.findings import Finding, findings
from ledger.model.operator_events import LoggedDecision
from ledger.model.unreadable import Unreadable
from ledger.operations.missing_events.queries import items
from ledger.operations.missing_events.subscriptions import read_subscription
from ledger.operations.policy import Policy
from ledger.operations.read_models import MissingEventItem
from ledger.projection.read_event import BillEvents, Erased, Read, read_row

TESTS_SHOWN = 50
LONGEST_STATUS = 200
"""Characters. A summary of an event is a line, however large its body is."""


class FoldedBill(BillSummary, frozen=True, kw_only=True):
    """A bill with its reports and missing events, as in the HTTP contract."""

    reports: list[Report]
    missing_events: list[MissingEventItem]


class LoggedItem(Struct, frozen=True):
    """One event of the bill's history. `says` is a summary of its body in a few words.

    `event_type` is the kind of an operator's decision, and empty for an unreadable event, as
    `event_time` is null for it. Times are UTC.
    """

    position: int
    event_type: str
    event_time: datetime | None
    received_at: datetime
    source: Source
    says: str


class BillDetails(Struct, frozen=True):
    """A bill, its findings explained, and its events in order of position.

    `bill` is null if none of the events could be folded: they are unreadable or of other types.
    """

    bill: FoldedBill | None
    findings: list[Finding]
    events: list[LoggedItem]


def read_bill(
    connection: Connection,
    policy: Policy,
    lab_id: str,
    bill_id: str,
    now: datetime,
    *,
    known_at: int | None = None,
) -> BillDetails:
    """Fold a bill from the log, so that it is right even where the projector lags or is stopped.

    The state of missing events is the one at the time `now`. With `known_at`, a log position, the
    bill is what was known at it, and `now` the time of its last event then; its later events are
    listed all the same. Raises `UnknownSubjectError` if the log has no event of the bill.
    """
    key = (lab_id, bill_id)
    history = BillEvents()
    events: list[LoggedItem] = []
    for row in read.of_bills(connection, [key], read.head(connection)):
        found = read_row(row)
        events.append(_logged(row, found))
        if known_at is None or row.position <= known_at:
            history.add(found, len(row.body))
    if not events:
        raise UnknownSubjectError(f"no event of bill {bill_id!r} of lab {lab_id!r} is in the log")
    history.raise_if_too_large()
    events.sort(key=attrgetter("position"))
    if known_at is not None:
        now = max((e.received_at for e in events if e.position <= known_at), default=now)
    if not history.events:
        return BillDetails(None, [], events)
    bill = fold(lab_id, bill_id, history.events, history.decisions)
    subscribed = read_subscription(connection, policy, lab_id).events
    missing = [one for one in bill.missing_events if one.event_type in subscribed]
    summary = {name: getattr(bill.summary, name) for name in BillSummary.__struct_fields__}
    folded = FoldedBill(
        **summary,
        reports=bill.reports,
        missing_events=items(missing, key, bill.summary.integrator_id, policy, now),
    )
    return BillDetails(folded, findings(history_of(history.events)), events)


def _logged(row: LogRow, found: Read) -> LoggedItem:
    event_type, event_time, says = _words(found)
    if row.erased_type is not None and isinstance(found, Event):
        says = "not folded; the body was erased"
    received_at = row.received_at.astimezone(UTC)
    return LoggedItem(row.position, event_type, event_time, received_at, row.source, says)


def _words(found: Read) -> tuple[str, datetime | None, str]:
    """Return the type, the time and a summary of what a row of the log says."""
    if isinstance(found, LoggedEvent):
        return found.type, _from_unix(found.at), _said(found)
    if isinstance(found, Event):
        return found.event_type, _from_unix(found.event_time), "not folded"
    if isinstance(found, Erased):
        return "", None, "the body, which could not be read, was erased"
    if isinstance(found, Unreadable):
        return "", None, f"unreadable: {found.reason} at {found.path}: {found.detail}"
    decision = found.decision if isinstance(found, LoggedDecision) else found
    reason = getattr(decision, "reason", None)
    key = f" (key {decision.by_key})" if decision.by_key else ""
    says = f"by {decision.by}{key}{f': {reason}' if reason else ''}"
    return str(decision.__struct_config__.tag), decision.at, says


def _said(event: LoggedEvent) -> str:
    tests = ", ".join(
        f"{test} {_short(status or 'without status')}"
        for test, status in islice(event.tests.items(), TESTS_SHOWN)
    )
    if (more := len(event.tests) - TESTS_SHOWN) > 0:
        tests += f" and {more} more"
    return "; ".join(filter(None, (event.status and f"status {_short(event.status)}", tests)))


def _short(status: str) -> str:
    return status if len(status) <= LONGEST_STATUS else f"{status[:LONGEST_STATUS]}..."


def _from_unix(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
