"""Reads rows of the log: what each is, and whether it is folded with a bill."""

from collections.abc import Sequence

from msgspec import Struct

from ledger.errors import BillTooLargeError
from ledger.eventlog.read import LogRow
from ledger.model.bill_history import LoggedEvent, logged_event, memory_of, most_memory_of
from ledger.model.event import BillEvent, Event, event_without_body, read_event
from ledger.model.operator_events import (
    AnyDecision,
    BillDecision,
    LoggedDecision,
    read_decision,
)
from ledger.model.unreadable import Unreadable


class Erased(Struct, frozen=True):
    """A body that was unreadable when it was erased. There is nothing to tell of it."""


ERASED = Erased()

Read = LoggedEvent | LoggedDecision | Event | AnyDecision | Unreadable | Erased
"""What a row of the log is. The first two are folded with their bill."""

MOST_MEMORY = 64 * 1024 * 1024
"""Bytes that the events of one bill may take, by `memory_of`; a bill of more is parked.

What the fold does not need of a body does not count.
"""


class Excess(Struct):
    """What is kept of the events of a bill that is too large."""

    position: int = 0
    integrator_ids: set[str] = set()

    def add(self, events: Sequence[LoggedEvent]) -> None:
        """Keep what is needed of events."""
        self.position = max(self.position, *(event.position for event in events))
        self.integrator_ids.update(filter(None, (event.integrator_id for event in events)))


class BillEvents(Struct):
    """What is folded of a bill: its events and the decisions about it, in any order.

    `memory` is what the events take at the most. Where that is more than `MOST_MEMORY`, there is an
    `excess` and `events` stays empty.
    """

    events: list[LoggedEvent] = []
    decisions: list[LoggedDecision] = []
    memory: int = 0
    is_exact: bool = False
    excess: Excess | None = None

    def copy(self) -> "BillEvents":
        """Return a copy to which other events can be added."""
        excess = self.excess and Excess(self.excess.position, {*self.excess.integrator_ids})
        return BillEvents([*self.events], [*self.decisions], self.memory, self.is_exact, excess)

    def add(self, read: Read, size: int) -> Sequence[LoggedEvent]:
        """Add what was read from a body of `size` bytes, if it is folded.

        Returns the events that are not held, or no longer.
        """
        if isinstance(read, LoggedEvent):
            self.events.append(read)
            self.memory += memory_of(read) if self.is_exact else most_memory_of(read, size)
            if self.memory > MOST_MEMORY or self.excess:
                return self._shrink()
        elif isinstance(read, LoggedDecision):
            self.decisions.append(read)
        return ()

    def raise_if_too_large(self) -> None:
        """Raise `BillTooLargeError` if there is an excess."""
        if self.excess:
            raise BillTooLargeError(
                f"the tests, statuses and report URLs of the bill's events need more than "
                f"{MOST_MEMORY // 1024**2} MiB of memory; the events stay in the log"
            )

    @property
    def is_empty(self) -> bool:
        """Whether there is no event, held or not."""
        return not self.events and self.excess is None

    @property
    def position(self) -> int:
        """The last position of the events."""
        return self.excess.position if self.excess else max(one.position for one in self.events)

    @property
    def integrator_ids(self) -> set[str]:
        """The integrator ids that the events name."""
        if self.excess:
            return self.excess.integrator_ids
        return {event.integrator_id for event in self.events if event.integrator_id}

    def _shrink(self) -> Sequence[LoggedEvent]:
        if not self.excess:
            # The same for every form of the bodies, so that the same bills are parked by all.
            self.is_exact, self.memory = True, sum(map(memory_of, self.events))
            if self.memory <= MOST_MEMORY:
                return ()
            self.excess = Excess()
        dropped, self.events = self.events, []
        self.memory = 0
        self.excess.add(dropped)
        return dropped


def read_row(row: LogRow) -> Read:
    """Read one row of the log; never raises."""
    position, received_at, digest, lab_id, _, body, source, erased_type, erased_time = row
    if erased_type is not None:
        seconds = None if erased_time is None else int(erased_time.timestamp())
        return event_without_body(lab_id, erased_type, seconds) or ERASED
    if source == "operator":
        decision = read_decision(body)
        if isinstance(decision, BillDecision):
            return LoggedDecision(position, decision)
        return decision
    event = read_event(body)
    if isinstance(event, BillEvent):
        return logged_event(position, received_at, digest, event, imported=source == "import")
    return event
