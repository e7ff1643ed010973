"""The deliveries that wait for a commit, in the order in which they came."""

from collections import deque
from collections.abc import Callable

import structlog
from msgspec import Struct

from ledger.errors import AppendError
from ledger.eventlog.append import Delivery, Outcome, Spooled

MAX_BATCH = 512
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024

Listener = Callable[[Outcome | Spooled | AppendError], object]

_log = structlog.get_logger(__name__)


class Waiting(Struct):
    """A queued delivery, its callback and its deadline (by the loop's clock).

    `alone`: it goes into a transaction of its own, for one that it shared was refused.
    `from_spool`: it is on disk already, and stays there if it cannot be committed.
    """

    delivery: Delivery
    listener: Listener | None
    deadline: float
    alone: bool = False
    from_spool: bool = False

    def tell(self, outcome: Outcome | Spooled | AppendError) -> None:
        """Call the callback with the outcome, once."""
        listener, self.listener = self.listener, None
        if listener:
            try:
                listener(outcome)
            except Exception:  # noqa: BLE001 -- the others of its batch must hear, too
                _log.exception("a delivery's callback failed")


class DeliveryQueue:
    """Bounded by bytes; those of a batch under way count until they are released."""

    def __init__(self) -> None:
        self._queue: deque[Waiting] = deque()
        # Each in the order in which their time is over: those of the spool have more of it.
        self._unanswered: deque[Waiting] = deque()
        self._unanswered_of_spool: deque[Waiting] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        """Return whether a delivery waits to be taken."""
        return bool(self._queue)

    def __len__(self) -> int:
        """Return how many wait to be taken."""
        return len(self._queue)

    def put(self, waiting: Waiting) -> bool:
        """Add a delivery, and tell whether there was room."""
        size = len(waiting.delivery.body)
        if self._bytes + size > MAX_WAITING_BYTES:
            return False
        self._bytes += size
        (self._unanswered_of_spool if waiting.from_spool else self._unanswered).append(waiting)
        self._queue.append(waiting)
        return True

    def take(self) -> list[Waiting]:
        """Return the next batch; its deliveries stay in the count of bytes."""
        taken: list[Waiting] = []
        size = 0
        while self._queue and len(taken) < MAX_BATCH and size < MAX_BATCH_BYTES:
            if taken and self._queue[0].alone:
                break
            waiting = self._queue.popleft()
            if waiting.listener:
                taken.append(waiting)
                size += len(waiting.delivery.body)
            else:  # it waited too long, and its sender was asked to send it again
                self.release([waiting])
            if waiting.alone:
                break
        return taken

    def put_back_alone(self, batch: list[Waiting]) -> None:
        """Put a batch back to the front, for each of its deliveries to be committed alone."""
        for waiting in batch:
            waiting.alone = True
        self._queue.extendleft(reversed(batch))

    def release(self, batch: list[Waiting]) -> None:
        """Count the bytes of a batch no more."""
        self._bytes -= sum(len(waiting.delivery.body) for waiting in batch)

    def take_overdue(self, now: float) -> list[Waiting]:
        """Return those whose deadline has passed and who were told nothing yet.

        One look at the oldest now and then, for a timer for each delivery costs as much as the rest
        of its way.
        """
        return [
            *_take_overdue(self._unanswered, now),
            *_take_overdue(self._unanswered_of_spool, now),
        ]


def _take_overdue(unanswered: deque[Waiting], now: float) -> list[Waiting]:
    overdue = []
    while unanswered:
        oldest = unanswered[0]
        if oldest.listener:
            if oldest.deadline > now:
                break
            overdue.append(oldest)
        unanswered.popleft()
    return overdue
