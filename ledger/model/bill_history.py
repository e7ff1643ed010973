"""The events of one bill, in the order that decides what is newest.

Source: design, "Order".
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from operator import attrgetter

import msgspec
from msgspec import Struct

from ledger.model.event import RANK, BillEvent, is_completed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400
_BY_ORDER = attrgetter("order")
_BY_RECEPTION = attrgetter("received_at", "position")


class LoggedEvent(Struct, frozen=True, gc=False):
    """A readable event of a bill, made ready for the fold, with what the log adds to it.

    `position` is the log's, `received_at` the time (UTC) of the first delivery. `imported` tells
    that it came in a file and not from the sender. `order` is its place among the bill's events:
    `(event_time, rank, progress, digest)`. `at` is the event's time in Unix seconds, and `delay`
    how many seconds later it was received. `tests` maps each test that the event mentions to the
    status it says; of a test mentioned twice the last mention counts. `completed` holds those of
    them that it says completed.
    """

    position: int
    received_at: datetime
    imported: bool
    event: BillEvent
    order: tuple[int, int, int, bytes]
    at: int
    delay: int
    type: str
    status: str | None
    integrator_id: str | None
    report_url: str | None
    tests: dict[str, str | None]
    completed: set[str]

    @property
    def moment(self) -> tuple[int, int]:
        """Return the part of the order that is the sender's: event time and rank."""
        return self.order[:2]


class History(Struct, frozen=True, gc=False):
    """The events of a bill, oldest first: all of them, and those of each type; what the newest say.

    `statuses` has each test that an event mentions. `integrator_ids` are those that the events
    name, in their order, none twice in a row. `reported` are the tests that some `report.completed`
    says completed. `resent` are events that support sent again with another time: they are in none
    of the other lists, and nothing here is said by them.
    """

    events: list[LoggedEvent]
    creations: list[LoggedEvent]
    reports: list[LoggedEvent]
    completions: list[LoggedEvent]
    deletions: list[LoggedEvent]
    statuses: dict[str, str | None]
    flabs_status: str | None
    report_url: str | None
    integrator_ids: list[str]
    reported: set[str]
    resent: list[LoggedEvent]


def logged_event(
    position: int, received_at: datetime, digest: bytes, event: BillEvent, *, imported: bool
) -> LoggedEvent:
    """Make an event ready for the fold; `digest` is the body's, of 32 bytes."""
    at = event.event_time
    data = event.data
    bill = data.bill_data
    status = None
    tests: dict[str, str | None] = {}
    completed: set[str] = set()
    if bill:
        status = bill.status
        for test in bill.tests or ():
            word = test.status
            tests[test.test_id] = word
            if word == "completed" or is_completed(word):  # plain: without a call
                completed.add(test.test_id)
            else:  # what an earlier mention said
                completed.discard(test.test_id)
    return LoggedEvent(
        position=position,
        received_at=received_at,
        imported=imported,
        event=event,
        order=(at, RANK[event.event_type], len(completed), digest),
        at=at,
        delay=delay(received_at, at),
        type=event.event_type,
        status=status,
        integrator_id=data.integrator_id,
        report_url=data.report_url,
        tests=tests,
        completed=completed,
    )


def delay(received_at: datetime, event_time: int) -> int:
    """Return how many whole seconds after it happened an event was received, rounded down."""
    since = received_at - _EPOCH  # days, seconds and a part of a second that is not negative
    return since.days * _DAY + since.seconds - event_time


def history_of(events: list[LoggedEvent]) -> History:
    """Put events, given in any order, in theirs: `(event_time, rank, progress, digest)`.

    Flabs' times are whole seconds: of two events within one, the one that says more tests completed
    came later, and the digest decides what is left, so that any order of arrival gives this one.
    """
    events = sorted(events, key=_BY_ORDER)
    sent_again: list[LoggedEvent] = []
    if [event for event in events if event.imported]:
        originals = resent(events)
        sent_again = [event for event in events if event.position in originals]
        events = [event for event in events if event.position not in originals]
    of_rank: tuple[list[LoggedEvent], ...] = ([], [], [], [])
    creations, reports, completions, deletions = of_rank
    statuses: dict[str, str | None] = {}
    flabs_status = report_url = integrator_id = None
    integrator_ids: list[str] = []
    for event in events:  # oldest first, so the newest stays
        of_rank[event.order[1]].append(event)
        statuses |= event.tests
        flabs_status = event.status or flabs_status
        report_url = event.report_url or report_url
        if event.integrator_id and event.integrator_id != integrator_id:
            integrator_id = event.integrator_id
            integrator_ids.append(integrator_id)
    reported: set[str] = set()
    for event in reports:
        reported |= event.completed
    return History(
        events=events,
        creations=creations,
        reports=reports,
        completions=completions,
        deletions=deletions,
        statuses=statuses,
        flabs_status=flabs_status,
        report_url=report_url,
        integrator_ids=integrator_ids,
        reported=reported,
        resent=sent_again,
    )


def resent(events: Iterable[LoggedEvent]) -> dict[int, int]:
    """Return the positions of events sent again with another time, each with the original's.

    Support may stamp what it sends from its archive with the time of sending. Such an event says
    nothing that the webhook had not said, and taken at its word it would make a bill of last week
    pending again. So an imported event that equals one of the sender's own but for its time is no
    second fact. Of two that the sender itself sent at two times, both are.
    """
    originals: dict[tuple[str, str], int] = {}
    imported = []
    for logged in sorted(events, key=attrgetter("position")):
        if logged.imported:
            imported.append(logged)
        else:
            originals.setdefault(_all_but_time(logged.event), logged.position)
    found = ((logged.position, originals.get(_all_but_time(logged.event))) for logged in imported)
    return {position: original for position, original in found if original is not None}


def by_reception(events: list[LoggedEvent]) -> list[LoggedEvent]:
    """Return events in the order in which their first deliveries came."""
    # Receivers on several machines may stamp the same instant; the log's order decides then.
    return sorted(events, key=_BY_RECEPTION)


def _all_but_time(event: BillEvent) -> tuple[str, str]:
    """Return what tells an event from others but its time; the order of its tests says nothing."""
    bill = event.data.bill_data
    tests = sorted(map(repr, bill.tests)) if bill and bill.tests else []
    plain = msgspec.structs.replace(event.data, bill_data=None)
    return (event.event_type, f"{plain!r} {bill and bill.status!r} {tests}")
