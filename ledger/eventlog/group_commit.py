"""Group commit: deliveries that arrive together are appended in one transaction.

One task owns one connection. While a transaction commits, the next deliveries gather, so a batch
grows with the load and a single delivery does not wait for others.
"""

import asyncio
import select
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import structlog
from msgspec import Struct

from ledger.errors import AppendError
from ledger.eventlog.append import Appender, Delivery, Outcome
from ledger.eventlog.liveness import BEAT_SECONDS, Liveness, steady_clock
from ledger.metrics import BATCHES, DELIVERIES, LANE_FAILURES
from ledger.postgres.connect import CONTENT_ERRORS, connect

MAX_BATCH = 512
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024

PATIENCE = 6.0
"""Seconds that a delivery waits for its commit. The sender hangs up after ten."""

LOOK_SECONDS = 0.25
"""How often those that have waited too long are looked for."""

SILENCE_SECONDS = 5.0
"""Between two lines in the log that say the same: an outage under load would fill it."""

STATEMENT_TIMEOUT = 5_000
"""Milliseconds after which the server gives an append up, so that a lock that somebody else holds
does not hold the lane as well."""

_log = structlog.get_logger(__name__)


Listener = Callable[[Outcome | AppendError], object]


class _Waiting(Struct):
    """A queued delivery, its callback and its deadline (by the loop's clock).

    `alone`: it goes into a transaction of its own, for one that it shared was refused.
    """

    delivery: Delivery
    listener: Listener | None
    deadline: float
    alone: bool = False

    def tell(self, outcome: Outcome | AppendError) -> None:
        """Call the callback with the outcome, once."""
        listener, self.listener = self.listener, None
        if listener:
            try:
                listener(outcome)
            except Exception:  # noqa: BLE001 -- the others of its batch must hear, too
                _log.exception("a delivery's callback failed")


class GroupCommit:
    """Makes deliveries durable, for one event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._appender: Appender | None = None
        self._queue: deque[_Waiting] = deque()
        self._unanswered: deque[_Waiting] = deque()  # in the order in which their time is over
        self._under_way: list[_Waiting] = []
        self._bytes_waiting = 0
        self._last_words = ""
        self._last_said = 0.0
        self._stopping = False
        self._liveness = Liveness()

    def start(self) -> None:
        """Start the task, in the event loop that will append."""
        self._loop = asyncio.get_running_loop()
        self._give_up_on_overdue()
        self._woken: asyncio.Future[None] = self._loop.create_future()
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """Commit what waits, then end the task."""
        self._stopping = True
        self._wake()
        await asyncio.wait([self._task], timeout=PATIENCE)
        self._task.cancel()

    async def append(self, delivery: Delivery) -> Outcome:
        """Append a delivery; when this returns, it is durable.

        Raises `AppendError` if it could not be made durable in time. It may or may not be in the
        log then; sending it again does no harm.
        """
        told: asyncio.Future[Outcome | AppendError] = self._loop.create_future()

        def tell(outcome: Outcome | AppendError) -> None:
            if not told.done():  # the caller may have been cancelled
                told.set_result(outcome)

        self.enqueue(delivery, tell)
        outcome = await told
        if isinstance(outcome, AppendError):
            raise outcome
        return outcome

    def enqueue(self, delivery: Delivery, listener: Listener) -> None:
        """Do what `append` does, and tell the listener what that would return or raise."""
        waiting = _Waiting(delivery, listener, self._loop.time() + PATIENCE)
        size = len(delivery.body)
        if self._stopping or self._bytes_waiting + size > MAX_WAITING_BYTES:
            waiting.tell(AppendError("too many deliveries wait for the database"))
            return
        self._bytes_waiting += size
        self._unanswered.append(waiting)
        self._queue.append(waiting)
        if self._under_way:
            self._look()
        else:
            self._wake()

    def _give_up_on_overdue(self) -> None:
        """Answer those whose time is over; called by the loop again and again.

        One look at the oldest now and then, for a timer for each delivery costs as much as the rest
        of its way.
        """
        now = self._loop.time()
        while self._unanswered:
            oldest = self._unanswered[0]
            if oldest.listener:
                if oldest.deadline > now:
                    break
                oldest.tell(AppendError("the database did not commit in time"))
            self._unanswered.popleft()
        if not self._stopping:
            self._loop.call_later(LOOK_SECONDS, self._give_up_on_overdue)

    async def _run(self) -> None:
        try:
            while not self._stopping or self._queue:
                await self._record_liveness()
                if self._queue:
                    await self._commit()
                else:
                    await self._rest()
        finally:
            self._disconnect()

    async def _rest(self) -> None:
        """Wait for a delivery, or until liveness is to be recorded."""
        self._woken = self._loop.create_future()
        timer = self._loop.call_later(BEAT_SECONDS, self._wake)
        await self._woken
        timer.cancel()

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    async def _record_liveness(self) -> None:
        """Record, now and then, that a delivery could be made durable. Never raises."""
        now = steady_clock()
        if not self._liveness.is_due(now):
            return
        try:
            connection = (await self._connected()).connection
            await asyncio.to_thread(self._liveness.beat, connection, datetime.now(UTC), now)
        except Exception as error:  # noqa: BLE001 -- whatever it was, a delivery would fail as well
            self._failed(error, [])

    async def _commit(self) -> None:
        """Commit batch after batch, until nothing waits or liveness is to be recorded."""
        self._landed = self._loop.create_future()
        try:
            appender = await self._connected()
            appender.watch(self._look)
            try:
                if self._begin(appender):
                    await self._landed
            finally:
                appender.unwatch()
        except Exception as error:  # noqa: BLE001 -- whatever it was, the callers must hear of it
            self._give_up(error)

    def _begin(self, appender: Appender) -> bool:
        """Send the next batch, and tell whether there is one."""
        self._under_way = self._take()
        if self._under_way:
            appender.begin([waiting.delivery for waiting in self._under_way])
        return bool(self._under_way)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        size = 0
        while self._queue and len(taken) < MAX_BATCH and size < MAX_BATCH_BYTES:
            if taken and self._queue[0].alone:
                break
            waiting = self._queue.popleft()
            if waiting.listener:
                taken.append(waiting)
                size += len(waiting.delivery.body)
            else:  # it waited too long, and its sender was asked to send it again
                self._make_room([waiting])
            if waiting.alone:
                break
        return taken

    def _look(self) -> None:
        """Look whether the batch under way is committed; if so, send the next at once.

        Called when PostgreSQL answers, and at each delivery: the event loop looks at its sockets
        only after it has taken all deliveries that came, and PostgreSQL would have nothing to do
        meanwhile.
        """
        appender = self._appender
        if self._landed.done() or not appender:
            return
        try:
            outcomes = appender.outcomes()
            if outcomes is None:
                return
            batch, self._under_way = self._under_way, []
            self._make_room(batch)
            self._loop.call_soon(_tell, batch, outcomes)
            stops = self._liveness.is_due(steady_clock()) or _has_something_to_say(appender)
            if stops or not self._begin(appender):
                self._landed.set_result(None)
        except Exception as error:  # noqa: BLE001 -- for the task to deal with
            self._landed.set_exception(error)

    def _give_up(self, error: Exception) -> None:
        """Refuse the batch under way, or the one that would have been."""
        batch, self._under_way = self._under_way or self._take(), []
        if isinstance(error, CONTENT_ERRORS) and len(batch) > 1:
            # One of them is what the database will not take; the others must not suffer.
            for waiting in batch:
                waiting.alone = True
            self._queue.extendleft(reversed(batch))
            return
        self._make_room(batch)
        refusal = self._failed(error, batch)
        for waiting in batch:
            waiting.tell(AppendError(str(refusal)))  # each its own traceback

    def _make_room(self, batch: list[_Waiting]) -> None:
        self._bytes_waiting -= sum(len(waiting.delivery.body) for waiting in batch)

    async def _connected(self) -> Appender:
        if self._appender and _has_something_to_say(self._appender):
            self._disconnect()
        if self._appender is None:
            self._appender = await asyncio.to_thread(_connect, self._url)
        return self._appender

    def _disconnect(self) -> None:
        if self._appender:
            with suppress(Exception):
                self._appender.connection.close()
        self._appender = None

    def _failed(self, error: Exception, batch: list[_Waiting]) -> AppendError:
        words = " ".join(str(error).split())
        LANE_FAILURES.inc(len(batch))
        now = time.monotonic()
        if words != self._last_words or now > self._last_said + SILENCE_SECONDS:
            self._last_words, self._last_said = words, now
            event = "append failed" if batch else "no delivery could be made durable now"
            _log.error(event, deliveries=len(batch), error=words)
        if not isinstance(error, CONTENT_ERRORS):
            self._liveness.interrupt()
            # A server that became read-only, or a half-dead connection, is cured by a new one.
            self._disconnect()
        # The sender learns no more than that; the log has the details for the operator.
        return AppendError("the database did not store it")


def _connect(url: str) -> Appender:
    """Open the connection that appends, which blocks."""
    connection = connect(url, "lane")
    try:
        connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT}")
        return Appender(connection)
    except psycopg.Error:
        connection.close()
        raise


def _has_something_to_say(appender: Appender) -> bool:
    """Return whether the server sent something unasked, nearly always that it is closing.

    Asks the socket and not the server, so that it can be asked before each batch.
    """
    poll = select.poll()
    poll.register(appender.connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _tell(batch: list[_Waiting], outcomes: list[Outcome]) -> None:
    words: Counter[str] = Counter()
    for waiting, outcome in zip(batch, outcomes, strict=True):
        waiting.tell(outcome)
        words[outcome.word(waiting.delivery)] += 1
    BATCHES.observe(len(batch))
    for word, number in words.items():
        DELIVERIES.labels(outcome=word).inc(number)
