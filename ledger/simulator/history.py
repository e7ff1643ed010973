"""What happens in the simulated labs: bills and their events, the same for the same seed.

Pure: no clock, no I/O. Random numbers come from `random.random()` only, the one method whose
sequence Python promises to keep in all versions.
"""

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from ledger.event_types import EventType

TestData = Literal["snapshot", "delta"]

DAY = 86_400
"""Seconds in a day."""

BILLS_PER_DAY = 5_000
"""More bills take more days, which bounds the number of bills open at a time, and so memory."""

DESK, DELETED, UNFINISHED, CORRECTED, REOPENED = 0.15, 0.03, 0.04, 0.04, 0.04
"""Shares of the bills: created at the lab's own desk, deleted, left with a test not completed, with
a report completed again, with tests added after completion."""

COMPLETED = ("completed",) * 6 + ("Completed", "COMPLETED", " Completed", "completed ")
WAITING = ("pending", "pending", "Pending", "in progress", None)
CREATED_LISTS = ("tests",) * 6 + ("empty", "empty", "null", "absent")
CATALOGUE = 400
"""Number of different tests that the labs offer."""

MAX_TESTS = 6

COMPLETION_DELAY = 30
"""Maximum seconds from the last report of a bill to its completion."""

T = TypeVar("T")


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened to a bill; `body` is the webhook's payload, JSON in UTF-8."""

    lab_id: str
    bill_id: str
    event_type: EventType
    event_time: int  # Unix time, whole seconds
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The parameters that determine what happens; equal values give equal bytes."""

    seed: int
    start: int  # Unix time before which nothing happens
    bills: int
    labs: int
    test_data: TestData  # what a report.completed lists: all tests of the bill, or its own
    days: int | None = None  # None: one per 5,000 bills, rounded up

    @property
    def seconds(self) -> int:
        """Length of the history in seconds."""
        return DAY * (self.days or -(-self.bills // BILLS_PER_DAY))

    @property
    def end(self) -> int:
        """Unix time after which nothing happens."""
        return self.start + self.seconds

    @property
    def tag(self) -> str:
        """Eight characters in the ids of bills, so that two histories share no bill."""
        told = f"{self.seed}/{self.start}/{self.bills}/{self.labs}/{self.test_data}"
        if self.days:
            told += f"/{self.days}"
        return hashlib.sha256(told.encode()).hexdigest()[:8]


def bills(history: History) -> Iterator[list[Event]]:
    """Yield the events of bill after bill, each list in order of event time.

    The bills come in order of their first event, and are made lazily.
    """
    tag = history.tag
    spacing = history.seconds / history.bills
    for index in range(history.bills):
        bill = _Bill(history, tag, index, spacing)
        yield list(itertools.takewhile(_has_happened_by(history.end), bill.events()))


def lab_ids(labs: int) -> list[str]:
    """Return the ids of the simulated labs."""
    return [_lab_id(index) for index in range(labs)]


def _lab_id(index: int) -> str:
    return f"lab_{1 + index:04}"


def events(history: History) -> Iterator[Event]:
    """Yield the events of all bills in order of event time."""
    for _, event in merge(
        (own[0].event_time, [(event.event_time, event) for event in own]) for own in bills(history)
    ):
        yield event


def merge(groups: Iterator[tuple[int, Sequence[tuple[int, T]]]]) -> Iterator[tuple[int, T]]:
    """Merge groups of timed items into one stream in order of time.

    A group is `(begin, [(time, item), ...])`, with no time before `begin`; groups come in order
    of `begin`. Holds only the items of groups that have begun and not ended. Of equal times, the
    group and the item that came first go first.
    """
    heap: list[tuple[int, int, T]] = []
    order = itertools.count()
    for begin, timed in groups:
        while heap and heap[0][0] < begin:
            time, _, item = heapq.heappop(heap)
            yield time, item
        for time, item in timed:
            heapq.heappush(heap, (time, next(order), item))
    while heap:
        time, _, item = heapq.heappop(heap)
        yield time, item


def _has_happened_by(end: int) -> Callable[[Event], bool]:
    # A bill's completion follows its last report at once. If the day ended between the two, the
    # receiver would rightly report an event as missing that never happened.
    latest = {"report.completed": end - COMPLETION_DELAY}
    return lambda event: event.event_time <= latest.get(event.event_type, end)


class _Bill:
    """Generates the events of one bill."""

    def __init__(self, history: History, tag: str, index: int, spacing: float) -> None:
        # One generator per bill makes it independent of the number of draws for other bills.
        self._chance = random.Random(f"{history.seed}/{index}").random
        self._end = history.end
        self._prompt = history.days is not None
        self._delta = history.test_data == "delta"
        self._time = history.start + int((index + self._chance()) * spacing)
        self._lab_id = _lab_id(self._below(history.labs))
        self._bill_id = f"bill_{tag}_{index + 1}"
        self._tests: dict[str, str | None] = {}
        self._add_tests(1 + self._below(MAX_TESTS))
        self._integrator: dict[str, object] = {"integratorID": f"booking_{tag}_{index + 1}"}
        if self._happens(DESK):
            self._integrator = {"integratorID": None} if self._happens(0.5) else {}

    def events(self) -> Iterator[Event]:
        life = self._life()
        if not self._happens(DELETED):
            yield from life
            return
        for event in itertools.islice(life, 1 + self._below(4)):
            yield event
        # With given days, no deletion comes between the last report and the completion, which
        # follows at once. Without, it may, because the bytes for a seed must stay the same.
        if self._prompt and event.event_type == "report.completed" and not self._waiting():
            yield from itertools.islice(life, 1)
        newest = self._time
        self._pass(1, 3_600)
        # Kept even at the end of the day: the completion that it prevents would seem missing.
        self._time = min(self._time, max(self._end, newest))
        yield self._event("bill.deleted", "deleted", self._listed())

    def _life(self) -> Iterator[Event]:
        yield self._created()
        self._pass(60, 1_800)
        unfinished = self._happens(UNFINISHED)
        yield from self._reports(leave=1 if unfinished else 0)
        if unfinished:
            return
        yield self._completed()
        if self._happens(CORRECTED):
            self._pass(600, 14_400)
            yield self._report(self._pick(tuple(self._tests)), self._pick(COMPLETED))
        elif self._happens(REOPENED):
            yield from self._reopened()

    def _reopened(self) -> Iterator[Event]:
        # Two tests are added, because nothing is sent when a test is added: only the report of the
        # first shows the receiver that the second is not completed.
        self._pass(600, 14_400)
        self._add_tests(2)
        unfinished = self._happens(0.5)
        yield from self._reports(leave=1 if unfinished else 0)
        if not unfinished:
            yield self._completed()

    def _created(self) -> Event:
        listed = self._pick(CREATED_LISTS)
        tests: dict[str, object] = {}
        if listed == "tests":
            tests = self._listed()
        elif listed != "absent":
            tests = {"testData": [] if listed == "empty" else None}
        return self._event("bill.created", "pending", tests)

    def _reports(self, *, leave: int) -> Iterator[Event]:
        waiting = self._waiting()
        for test in waiting[: len(waiting) - leave]:
            last = test == waiting[-1]
            status = self._pick(COMPLETED) if last and self._happens(0.5) else "in progress"
            yield self._report(test, status)
            if not last and not self._happens(0.15):
                self._pass(120, 5_400)

    def _waiting(self) -> list[str]:
        return [test for test, status in self._tests.items() if status not in COMPLETED]

    def _report(self, test: str, status: str) -> Event:
        self._tests[test] = self._pick(COMPLETED)
        listed = self._listed(test) if self._delta else self._listed()
        return self._event("report.completed", status, listed)

    def _completed(self) -> Event:
        if self._happens(0.5):
            self._pass(1, COMPLETION_DELAY)
        return self._event("bill.completed", self._pick(COMPLETED), self._listed())

    def _event(self, event_type: EventType, status: str, tests: dict[str, object]) -> Event:
        data = {"billID": self._bill_id, **self._integrator}
        data["billData"] = {"status": status, **tests}
        if event_type != "bill.created":
            data["reportURL"] = f"https://reports.flabs.in/bill/{self._bill_id}"
        elif self._happens(0.5):
            data["reportURL"] = None
        payload = {
            "labID": self._lab_id,
            "eventType": event_type,
            "eventTime": self._time,
            "data": data,
        }
        return Event(
            lab_id=self._lab_id,
            bill_id=self._bill_id,
            event_type=event_type,
            event_time=self._time,
            body=msgspec.json.encode(payload),
        )

    def _listed(self, only: str | None = None) -> dict[str, object]:
        tests = self._tests if only is None else {only: self._tests[only]}
        return {"testData": [{"_id": test, "status": status} for test, status in tests.items()]}

    def _add_tests(self, count: int) -> None:
        wanted = len(self._tests) + count
        while len(self._tests) < wanted:
            self._tests.setdefault(f"test_{1 + self._below(CATALOGUE):03}", self._pick(WAITING))

    def _pass(self, least: int, most: int) -> None:
        self._time += least + int(self._chance() ** 2 * (most - least))

    def _happens(self, share: float) -> bool:
        return self._chance() < share

    def _below(self, bound: int) -> int:
        return int(self._chance() * bound)

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[self._below(len(choices))]
