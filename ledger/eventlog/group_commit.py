"""Group commit: deliveries that arrive together are appended in one transaction.

One task owns one connection. While a transaction commits, the next deliveries gather, so a batch
grows with the load and a single delivery does not wait for others. Every few seconds a rehearsal
goes the same way: it proves that a delivery could be made durable where none comes.
"""

import asyncio
import select
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import psycopg
import structlog
from msgspec import Struct

from ledger import tracing
from ledger.errors import AppendError, ContentError, SpoolError, one_line
from ledger.eventlog.append import SPOOLED, Appender, Delivery, Outcome, Spooled
from ledger.eventlog.delivery_queue import DeliveryQueue, Listener, Waiting
from ledger.eventlog.liveness import BEAT_SECONDS, LONGEST_GAP, Alive, Liveness, steady_clock
from ledger.eventlog.liveness_recorder import LivenessRecorder
from ledger.metrics import BATCHES, COMMIT_SECONDS, DELIVERIES, DELIVERY_SECONDS, LANE_FAILURES
from ledger.postgres.connect import CONTENT_ERRORS, connect

if TYPE_CHECKING:
    from ledger.open_telemetry import Spans

PATIENCE = 6.0
"""Seconds that a delivery waits for its commit. The sender hangs up after ten."""

SPOOL_PATIENCE = 4.0
"""Seconds that a delivery waits for the spool, after its patience with the log."""

LOOK_SECONDS = 0.25
"""How often those that have waited too long are looked for."""

SILENCE_SECONDS = 5.0
"""Between two lines in the log that say the same: an outage under load would fill it."""

STATEMENT_TIMEOUT = 5_000
"""Milliseconds after which the server gives an append up, so that a lock that somebody else holds
does not hold the lane as well."""

PROOF_SECONDS = 1.0
"""How old a proof that deliveries can be made durable may be for a check of readiness."""

_log = structlog.get_logger(__name__)


class Spool(Protocol):
    """Where deliveries are made durable while the log does not take them."""

    def can_take(self) -> bool:
        """Return whether a delivery could be written now."""

    def put(self, delivery: Delivery, told: Callable[[SpoolError | None], object]) -> None:
        """Write a delivery, then call `told` from any thread."""

    def note_alive(self, alive: Alive) -> None:
        """Have a durable note made of the time through which deliveries could be stored."""


class _Outage(Struct):
    """Since when, by the steady clock, nothing could be made durable, and how much was refused."""

    since: float
    reason: str
    refused: int = 0
    spooled: int = 0


class GroupCommit:
    """Makes deliveries durable, for one event loop: in the log, or else in a spool.

    A delivery that the log does not take within `patience` seconds goes to the spool, if there is
    one, and is refused otherwise. While it is known that the log takes none, it goes there at once.
    """

    def __init__(
        self, url: str, spool: Spool | None = None, *, patience: float | None = None
    ) -> None:
        self._url = url
        self._spool = spool
        self._patience = PATIENCE if patience is None else patience
        self._appender: Appender | None = None
        self._queue = DeliveryQueue()
        self._batch: list[Waiting] | None = None  # under way
        self._began = (datetime.min.replace(tzinfo=UTC), 0.0)
        self._last_probe = self._last_proof = self._last_refusal = float("-inf")
        self._refused: Delivery | None = None  # one of those of a batch that failed
        self._last_spool_proof = float("-inf")
        self._proofs: list[asyncio.Future[None]] = []
        self._outage: _Outage | None = None
        self._last_words = ""
        self._last_said = 0.0
        self._stopping = False
        self._liveness = Liveness()
        self._recorder = LivenessRecorder(url, self._liveness)
        # Connecting blocks. The event loop's own threads may all be busy with something else.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="lane")

    def start(self) -> None:
        """Start the task, in the event loop that will append."""
        self._loop = asyncio.get_running_loop()
        self._recorder.start()
        self._started = steady_clock()
        self._give_up_on_overdue()
        self._woken: asyncio.Future[None] = self._loop.create_future()
        self._task = self._loop.create_task(self._run())

    async def settle(self, *, within: float) -> None:
        """Wait until it is recorded that this process is alive, or cannot be, for some seconds.

        What is acknowledged after that, and lost in an outage right after it, is in a known outage.
        """
        with suppress(AppendError):
            await self.prove(within=within)
            await self._loop.run_in_executor(
                self._threads, self._recorder.wait_for_first_record, within
            )

    async def stop(self) -> None:
        """Commit what waits, then end the task."""
        self._stopping = True
        self._wake()
        await asyncio.wait([self._task], timeout=PATIENCE)
        self._task.cancel()
        await self._loop.run_in_executor(self._threads, self._recorder.stop, BEAT_SECONDS)
        self._threads.shutdown(wait=False)

    @property
    def is_recorded(self) -> bool:
        """Whether the database knows all of this process's liveness."""
        return self._liveness.is_recorded

    @property
    def is_able(self) -> bool:
        """Whether, as far as is known, the log takes deliveries now."""
        return self._outage is None and not self._stopping

    @property
    def waiting(self) -> int:
        """How many deliveries wait for their commit."""
        return len(self._queue) + len(self._batch or ())

    @property
    def is_spooling(self) -> bool:
        """Whether it is known that the log takes no deliveries, and the spool does."""
        return self._outage is not None and self.can_spool

    @property
    def can_spool(self) -> bool:
        """Whether deliveries are stored even while the log takes none."""
        return self._spool is not None and self._spool.can_take()

    async def append(self, delivery: Delivery, *, from_spool: bool = False) -> Outcome | Spooled:
        """Make a delivery durable; when this returns, it is.

        Raises `AppendError` if it could not be made durable in time. It may or may not be in the
        log then; sending it again does no harm. `from_spool`: it is in the spool already.
        """
        told: asyncio.Future[Outcome | Spooled | AppendError] = self._loop.create_future()

        def tell(outcome: Outcome | Spooled | AppendError) -> None:
            if not told.done():  # the caller may have been cancelled
                told.set_result(outcome)

        self.enqueue(delivery, tell, from_spool=from_spool)
        outcome = await told
        if isinstance(outcome, AppendError):
            raise outcome
        return outcome

    def enqueue(self, delivery: Delivery, listener: Listener, *, from_spool: bool = False) -> None:
        """Do what `append` does, and tell the listener what that would return or raise."""
        deadline = self._loop.time() + (PATIENCE if from_spool else self._patience)
        waiting = Waiting(delivery, listener, deadline, from_spool=from_spool)
        if self._outage and self._spool:
            self._refuse([waiting], self._outage.reason)
        elif self._stopping or not self._queue.put(waiting):
            self._refuse([waiting], "too many deliveries wait for the database")
        elif self._batch is None:
            self._wake()
        else:
            self._look()

    async def prove(self, *, within: float) -> None:
        """Return if a delivery can be made durable now, within so many seconds.

        Raises `AppendError` with the reason if it cannot.
        """
        if self.can_spool:
            return
        now = steady_clock()
        if self._outage and now - self._last_probe < PROOF_SECONDS:
            raise AppendError(self._outage.reason)
        if self._last_refusal < self._last_proof and now - self._last_proof < PROOF_SECONDS:
            return
        proof = self._loop.create_future()
        self._proofs.append(proof)
        self._last_probe = float("-inf")
        self._wake()
        await asyncio.wait([proof], timeout=within)
        if not proof.done():
            proof.cancel()
            reason = self._outage.reason if self._outage else "the database does not commit"
            raise AppendError(f"{reason} (no commit within {within:.0f} s)")
        proof.result()

    def _give_up_on_overdue(self) -> None:
        """Answer those whose time is over; called by the loop again and again."""
        if not self._stopping:  # first, so that no error ends it
            self._loop.call_later(LOOK_SECONDS, self._give_up_on_overdue)
        overdue = self._queue.take_overdue(self._loop.time())
        if overdue or (self._spool and self._has_no_proof()):
            self._begin_outage("the database did not commit in time")
        self._refuse(overdue, "the database did not commit in time")
        self._stay_alive()

    def _has_no_proof(self) -> bool:
        return steady_clock() - max(self._last_proof, self._started) > (
            BEAT_SECONDS + self._patience
        )

    def _stay_alive(self) -> None:
        """Note that deliveries are stored, if in an outage the spool can take them."""
        if not (self._outage and self._spool and self._spool.can_take()):
            return
        steady = steady_clock()
        if steady - self._last_spool_proof >= PROOF_SECONDS:
            self._last_spool_proof = steady
            self._liveness.prove(datetime.now(UTC), steady)
            if span := self._liveness.span():
                self._spool.note_alive(span)

    def _refuse(
        self, waiting: list[Waiting], reason: str, refusal: type[AppendError] = AppendError
    ) -> None:
        """Give deliveries that the log did not take to the spool, or tell their senders so."""
        unanswered = [each for each in waiting if each.listener]
        if self._spool is None:
            self._tell_refusal(unanswered, reason)
            return
        for each in unanswered:
            if each.from_spool:
                each.tell(refusal(reason))
                continue
            spooled = partial(self._spooled, each, reason)
            self._spool.put(each.delivery, partial(self._loop.call_soon_threadsafe, spooled))
            hung = SpoolError("the spool did not write it in time")
            self._loop.call_later(SPOOL_PATIENCE, spooled, hung)

    def _spooled(self, waiting: Waiting, reason: str, error: SpoolError | None) -> None:
        """Tell a sender what became of its delivery in the spool, unless it was told before."""
        if waiting.listener is None:
            return
        if error:
            self._tell_refusal([waiting], f"{reason}; {error}")
        else:
            DELIVERIES.labels(outcome="spooled").inc()
            waiting.tell(SPOOLED)
            if self._outage:
                self._outage.spooled += 1

    def _tell_refusal(self, refused: list[Waiting], reason: str) -> None:
        """Tell senders that their deliveries were not stored, and note the time as an outage."""
        if not refused:
            return
        received_at = min(each.delivery.received_at for each in refused)
        self._last_refusal = steady_clock()
        self._liveness.refuse(received_at, datetime.now(UTC), self._last_refusal, len(refused))
        if self._outage:
            self._outage.refused += len(refused)
        for each in refused:
            each.tell(AppendError(reason))  # each its own traceback

    async def _run(self) -> None:
        try:
            while not self._stopping or self._queue:
                if self._queue or self._is_probe_due():
                    await self._commit()
                else:
                    await self._rest()
        finally:
            self._disconnect()

    async def _rest(self) -> None:
        """Wait for a delivery, or until the next proof is due."""
        self._woken = self._loop.create_future()
        timer = self._loop.call_later(BEAT_SECONDS, self._wake)
        await self._woken
        timer.cancel()

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    def _is_probe_due(self) -> bool:
        return steady_clock() - self._last_probe >= BEAT_SECONDS

    async def _commit(self) -> None:
        """Commit batch after batch, until nothing waits."""
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
        is_probe = self._is_probe_due()
        batch = [] if is_probe else self._queue.take()
        if not batch and not is_probe:
            return False
        self._batch = batch
        self._began = (datetime.now(UTC), steady_clock())
        if is_probe:
            self._last_probe = self._began[1]
            # After a refusal, only what was refused proves that it could be stored now.
            appender.rehearse([self._refused] if self._refused else [])
        else:
            appender.begin([waiting.delivery for waiting in batch])
        return True

    def _look(self) -> None:
        """Look whether the batch under way is committed; if so, send the next at once.

        Called when PostgreSQL answers, and at each delivery: the event loop looks at its sockets
        only after it has taken all deliveries that came, and PostgreSQL would have nothing to do
        meanwhile.
        """
        appender = self._appender
        if self._landed.done() or not appender or self._batch is None:
            return
        try:
            outcomes = appender.outcomes()
            if outcomes is None:
                return
            batch, self._batch = self._batch, None
            self._queue.release(batch)
            if batch:
                COMMIT_SECONDS.observe(steady_clock() - self._began[1])
                self._loop.call_soon(_tell, batch, outcomes, self._began[0])
            self._proven()
            if _has_something_to_say(appender) or not self._begin(appender):
                self._landed.set_result(None)
        except Exception as error:  # noqa: BLE001 -- for the task to deal with
            self._landed.set_exception(error)

    def _proven(self) -> None:
        """Note that what was begun was committed."""
        now, steady = self._began
        if steady <= self._last_refusal:  # it took so long that deliveries were refused meanwhile
            self._last_probe = float("-inf")
            return
        begins = self._last_refusal > self._last_proof or steady - self._last_proof > LONGEST_GAP
        self._last_proof = steady
        self._refused = None
        self._liveness.prove(now, steady)
        for proof in self._proofs:
            if not proof.done():
                proof.set_result(None)
        self._proofs = []
        if outage := self._outage:
            self._outage = None
            _log.info(
                "deliveries can be made durable again",
                seconds=round(steady_clock() - outage.since, 1),
                refused=outage.refused,
                spooled=outage.spooled,
            )
        if begins:
            self._recorder.hurry()

    def _give_up(self, error: Exception) -> None:
        """Refuse the batch under way, or the one that would have been."""
        batch, self._batch = self._batch, None
        is_probe = batch == []
        if batch is None:
            batch = self._queue.take()
            self._last_probe = steady_clock()
        if isinstance(error, CONTENT_ERRORS):
            if is_probe:
                self._refused = None
            if len(batch) > 1:
                # One of them is what the database will not take; the others must not suffer.
                self._queue.put_back_alone(batch)
                return
        self._queue.release(batch)
        self._failed(error, batch)

    async def _connected(self) -> Appender:
        if self._appender and _has_something_to_say(self._appender):
            self._disconnect()
        if self._appender is None:
            self._appender = await self._loop.run_in_executor(self._threads, _connect, self._url)
        return self._appender

    def _disconnect(self) -> None:
        if self._appender:
            with suppress(Exception):
                self._appender.connection.close()
        self._appender = None

    def _failed(self, error: Exception, batch: list[Waiting]) -> None:
        # A message's details may quote the body of a delivery.
        primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        words = one_line(primary or error)
        LANE_FAILURES.inc(len(batch))
        now = time.monotonic()
        if words != self._last_words or now > self._last_said + SILENCE_SECONDS:
            self._last_words, self._last_said = words, now
            if batch:
                _log.error("append failed", deliveries=len(batch), error=words)
            else:
                _log.error("no delivery could be made durable now", error=words)
        if not isinstance(error, CONTENT_ERRORS):
            self._begin_outage(words)
            if self.can_spool:
                self._stay_alive()
            else:
                self._liveness.interrupt()
            if batch:
                self._refused = batch[0].delivery
            for proof in self._proofs:
                if not proof.done():
                    proof.set_exception(AppendError(words))
            self._proofs = []
            # A server that became read-only, or a half-dead connection, is cured by a new one.
            self._disconnect()
        # The sender learns no more than that; the log has the details for the operator.
        refusal = ContentError if isinstance(error, CONTENT_ERRORS) else AppendError
        self._refuse(batch, "the database did not store it", refusal)

    def _begin_outage(self, reason: str) -> None:
        if self._outage is None:
            self._outage = _Outage(steady_clock(), reason)
        self._outage.reason = reason


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


def _tell(batch: list[Waiting], outcomes: list[Outcome], began: datetime) -> None:
    told = list(zip(batch, outcomes, strict=True))
    words = Counter(
        outcome.word(waiting.delivery)
        for waiting, outcome in told
        if waiting.listener and not waiting.from_spool  # otherwise it was counted before
    )
    # Before the answers: what was answered is counted, whenever the process is killed.
    for word, number in words.items():
        DELIVERIES.labels(outcome=word).inc(number)
    for waiting, outcome in told:
        waiting.tell(outcome)
    BATCHES.observe(len(batch))
    if not batch[0].from_spool:  # the first has waited longest
        waited = datetime.now(UTC) - batch[0].delivery.received_at
        DELIVERY_SECONDS.observe(waited.total_seconds())
    if tracing.spans is not None:
        _trace(tracing.spans, batch, outcomes, began)


def _trace(spans: "Spans", batch: list[Waiting], outcomes: list[Outcome], began: datetime) -> None:
    delivered = [
        (
            waiting.delivery.columns.digest,
            waiting.delivery.received_at,
            outcome.position,
            outcome.word(waiting.delivery),
        )
        for waiting, outcome in zip(batch, outcomes, strict=True)
    ]
    with suppress(Exception):  # no trace is worth a delivery
        spans.committed(delivered, began)
