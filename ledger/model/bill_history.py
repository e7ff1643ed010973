"""Puts the events of one bill in order, which decides which of them is the newest.

Source: docs/rules.md, "Order of events" and "Resent imported events".
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
    """A readable event of a bill with its place in the log, prepared for the fold.

    `position` is its position in the log, `received_at` the time (UTC) of its first delivery.
    `imported` is true if it came from a file instead of a webhook. `order` is its sort key among
    the bill's events: `(event_time, rank, progress, digest)`. `at` is the event's time in Unix
    seconds, `delay` the seconds from then until it was received. `tests` maps each test that the
    event mentions to its status; if a test is mentioned twice, the last mention counts. `completed`
    holds the tests whose status is completed.
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
        """Return event time and rank, the part of the order that does not depend on content."""
        return self.order[:2]


class BillHistory(Struct, frozen=True, gc=False):
    """The events of a bill, oldest first: all of them and those of each type.

    `statuses` maps each test that any event mentions to its newest status. `flabs_status` and
    `report_url` are the newest that are not empty. `integrator_ids` are those that the events name,
    oldest first, without immediate repetitions. `reported` are the tests that some
    `report.completed` calls completed. `resent` are imported events that repeat a webhook with
    another time: no other field takes them into account.
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
    """Prepare an event for the fold; `digest` is the 32-byte digest of its body."""
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
            if word == "completed" or is_completed(word):  # the usual status needs no call
                completed.add(test.test_id)
            else:  # overrides an earlier mention
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


def memory_of(event: LoggedEvent) -> int:
    """Return the bytes of memory that an event takes at most, the same on every machine."""
    characters = sum(map(len, filter(None, (event.status, event.integrator_id, event.report_url))))
    bill = event.event.data.bill_data
    tests = (bill and bill.tests) or ()
    for test in tests:
        characters += len(test.test_id) + len(test.status or "")
    return _OF_EVENT + _OF_TEST * len(tests) + _OF_CHARACTER * characters


def most_memory_of(event: LoggedEvent, size: int) -> int:
    """Return at least what `memory_of` does, in less time; `size` is that of the body in bytes."""
    if size > _LONG:
        return memory_of(event)
    bill = event.event.data.bill_data
    tests = (bill and bill.tests) or ()
    return _OF_EVENT + _OF_TEST * len(tests) + _OF_CHARACTER * size


_OF_EVENT, _OF_TEST, _OF_CHARACTER = 1000, 300, 4
_LONG = 16 * 1024


def delay(received_at: datetime, event_time: int) -> int:
    """Return the whole seconds, rounded down, from an event's time until it was received."""
    since = (
        received_at - _EPOCH
    )  # its microseconds are never negative, so dropping them rounds down
    return since.days * _DAY + since.seconds - event_time


def history_of(events: list[LoggedEvent]) -> BillHistory:
    """Sort the events of a bill by `(event_time, rank, progress, digest)`.

    Flabs' times are whole seconds: of two events within one second, the one with more completed
    tests came later. The digest breaks the remaining ties, so that the order of arrival has no
    influence.
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
    for event in events:  # oldest first, so the newest value remains
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
    return BillHistory(
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
    """Map the position of each resent event to the position of the webhook that it repeats.

    An imported event that is identical to a webhook except for its time is a duplicate: support may
    stamp the events of its archive with the time of sending, and a `bill.created` of last week
    would then make its tests pending again. Two webhooks that differ only in their time are two
    events.
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
    """Return events in the order of their first deliveries."""
    # Receivers on several machines may record the same instant; then the log's order decides.
    return sorted(events, key=_BY_RECEPTION)


def _all_but_time(event: BillEvent) -> tuple[str, str]:
    """Return an event's content without its time and without the order of its tests."""
    bill = event.data.bill_data
    tests = sorted(map(repr, bill.tests)) if bill and bill.tests else []
    plain = msgspec.structs.replace(event.data, bill_data=None)
    return (event.event_type, f"{plain!r} {bill and bill.status!r} {tests}")
