"""Group commit: all deliveries that wait go into the log in one transaction.

The lane is a thread with one connection. While a transaction commits, the next deliveries gather,
so that a batch grows with the load and a single delivery waits for nobody. A thread and not a task,
because the driver's asynchronous side costs more than the append itself.
"""

import asyncio
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from psycopg import Connection

from ledger.database import CONTENT_ERRORS, connect
from ledger.errors import LaneError
from ledger.eventlog.append import Delivery, Outcome, append
from ledger.eventlog.liveness import BEAT_SECONDS, Liveness, steady_clock
from ledger.metrics import BATCHES, DELIVERIES, LANE_FAILURES

MAX_BATCH = 512
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024

PATIENCE = 6.0
"""Seconds that a delivery waits for its commit. The sender hangs up after ten."""

LOOK_SECONDS = 0.25
"""How often those that have waited too long are looked for."""

SILENCE_SECONDS = 5.0
"""Between two lines in the log that say the same: an outage under load would fill it."""

LOOP_MAY_REST = 2.0
"""Seconds after which an event loop that did not look counts as stuck: it would answer nobody."""

STATEMENT_TIMEOUT = 5_000
"""Milliseconds after which the server gives an append up, so that a lock that somebody else holds
does not hold the lane as well."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class _Waiting:
    """A delivery, the future of who waits for its outcome, and until when (by the loop's clock)."""

    __slots__ = ("deadline", "delivery", "outcome")

    def __init__(
        self, delivery: Delivery, outcome: asyncio.Future[Outcome], deadline: float
    ) -> None:
        self.delivery = delivery
        self.outcome = outcome
        self.deadline = deadline


class Lane:
    """Makes deliveries durable, for one event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: deque[_Waiting] = deque()
        self._unanswered: deque[_Waiting] = deque()  # in the order in which their time is over
        # Of bodies put into the queue, and of those done with: each is counted by one thread only.
        self._bytes_in = 0
        self._bytes_out = 0
        self._last_words = ""
        self._last_said = 0.0
        self._wake = threading.Event()
        self._stopping = False
        self._liveness = Liveness()
        self._loop_seen = 0.0  # by the steady clock
        self._thread = threading.Thread(target=self._run, name="lane", daemon=True)

    def start(self) -> None:
        """Start the thread; call in the event loop that will append."""
        self._loop = asyncio.get_running_loop()
        self._give_up_on_overdue()
        self._thread.start()

    async def stop(self) -> None:
        """Commit what waits, then end the thread."""
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, PATIENCE)

    async def append(self, delivery: Delivery) -> Outcome:
        """Append a delivery; when this returns, it is durable.

        Raises `LaneError` if it could not be made so, or not in time: then it may or may not be in
        the log, and sending it again does no harm.
        """
        size = len(delivery.body)
        if self._stopping or self._bytes_in - self._bytes_out + size > MAX_WAITING_BYTES:
            raise LaneError("too many deliveries wait for the database")
        assert self._loop  # noqa: S101 -- set by start()
        outcome: asyncio.Future[Outcome] = self._loop.create_future()
        waiting = _Waiting(delivery, outcome, self._loop.time() + PATIENCE)
        self._bytes_in += size
        self._unanswered.append(waiting)
        self._queue.append(waiting)
        self._wake.set()
        return await outcome

    def _give_up_on_overdue(self) -> None:
        """Answer those whose time is over; called by the loop again and again.

        One look at the oldest now and then, for a timer for each delivery costs as much as the rest
        of its way.
        """
        assert self._loop  # noqa: S101 -- set by start()
        self._loop_seen = steady_clock()
        now = self._loop.time()
        while self._unanswered:
            oldest = self._unanswered[0]
            if not oldest.outcome.done():
                if oldest.deadline > now:
                    break
                oldest.outcome.set_exception(LaneError("the database did not commit in time"))
            self._unanswered.popleft()
        if not self._stopping:
            self._loop.call_later(LOOK_SECONDS, self._give_up_on_overdue)

    def _run(self) -> None:
        self._record_liveness()
        while not self._stopping or self._queue:
            self._wake.wait(BEAT_SECONDS)
            self._wake.clear()
            self._record_liveness()
            while self._queue:
                taken = self._take()
                # Who waited too long has been told to send it again.
                if batch := [waiting for waiting in taken if not waiting.outcome.done()]:
                    self._commit(batch)
                self._bytes_out += sum(len(waiting.delivery.body) for waiting in taken)
                self._record_liveness()
        if self._connection:
            self._connection.close()

    def _record_liveness(self) -> None:
        """Record, now and then, that this thread and the event loop do their work. Never raises."""
        now = steady_clock()
        if not self._liveness.is_due(now) or now - self._loop_seen > LOOP_MAY_REST:
            return
        try:
            self._liveness.beat(self._connected(), datetime.now(UTC), now)
        except Exception as error:  # noqa: BLE001 -- whatever it was, a delivery would fail as well
            self._failed(error, [])

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        size = 0
        while self._queue and len(taken) < MAX_BATCH and size < MAX_BATCH_BYTES:
            taken.append(self._queue.popleft())
            size += len(taken[-1].delivery.body)
        return taken

    def _commit(self, batch: list[_Waiting]) -> None:
        """Append the batch and tell each of it what became of it. Never raises."""
        try:
            outcomes = append(self._connected(), [waiting.delivery for waiting in batch])
        except CONTENT_ERRORS as error:
            if len(batch) > 1:
                # One of them is what the database will not take; the others must not suffer.
                for waiting in batch:
                    self._commit([waiting])
            else:
                self._tell(_refuse, batch, self._failed(error, batch))
        except Exception as error:  # noqa: BLE001 -- whatever it was, those who wait must be told
            self._tell(_refuse, batch, self._failed(error, batch))
        else:
            self._tell(_settle, batch, outcomes)
            _count(batch, outcomes)

    def _tell(
        self, tell: Callable[[list[_Waiting], T], None], batch: list[_Waiting], what: T
    ) -> None:
        assert self._loop  # noqa: S101 -- set before the thread is started
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(tell, batch, what)

    def _connected(self) -> Connection:
        if self._connection and _has_something_to_say(self._connection):
            self._connection.close()
            self._connection = None
        if self._connection is None:
            self._connection = connect(self._url, "lane")
            # Never less durable than "on", whatever the server's default; more is the operator's.
            self._connection.execute(
                f"SET statement_timeout = {STATEMENT_TIMEOUT};"
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
        return self._connection

    def _failed(self, error: Exception, batch: list[_Waiting]) -> LaneError:
        if not isinstance(error, CONTENT_ERRORS):
            self._liveness.interrupt()
        words = " ".join(str(error).split())
        LANE_FAILURES.inc(len(batch))
        now = time.monotonic()
        if words != self._last_words or now > self._last_said + SILENCE_SECONDS:
            self._last_words, self._last_said = words, now
            event = "append failed" if batch else "no delivery could be made durable now"
            _log.error(event, deliveries=len(batch), error=words)
        if self._connection and not (isinstance(error, CONTENT_ERRORS)):
            # A server that became read-only, or a half-dead connection, is cured by a new one.
            with suppress(Exception):
                self._connection.close()
            self._connection = None
        # The sender is told no more than that: what went wrong is the operator's business.
        return LaneError("the database did not store it")


def _has_something_to_say(connection: Connection) -> bool:
    """Tell whether the server spoke unasked, which nearly always is its farewell, as at a restart.

    Asks the socket and not the server, so that it can be asked before each batch.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _settle(batch: list[_Waiting], outcomes: list[Outcome]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if not waiting.outcome.done():
            waiting.outcome.set_result(outcome)


def _refuse(batch: list[_Waiting], error: LaneError) -> None:
    for waiting in batch:
        if not waiting.outcome.done():
            waiting.outcome.set_exception(LaneError(str(error)))  # each its own traceback


def _count(batch: list[_Waiting], outcomes: list[Outcome]) -> None:
    BATCHES.observe(len(batch))
    words = Counter(
        outcome.word(waiting.delivery) for waiting, outcome in zip(batch, outcomes, strict=True)
    )
    for word, number in words.items():
        DELIVERIES.labels(outcome=word).inc(number)
