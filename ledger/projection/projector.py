"""Follows the log: folds the bills that new events touch and replaces their rows.

One transaction a batch, and the checkpoint moves in it. Any number of projectors may run: one of
them leads, by an advisory lock of its session, and the others wait for their turn.
"""

import threading
import time
from contextlib import suppress

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection

from ledger import tracing
from ledger.errors import (
    CheckpointError,
    DatabaseUnavailableError,
    LedgerError,
    StateError,
    one_line,
)
from ledger.eventlog import read
from ledger.eventlog.read import Key, LogRow
from ledger.model.bill_history import LoggedEvent
from ledger.model.operator_events import LoggedDecision
from ledger.postgres.cluster import is_distributed
from ledger.postgres.connect import CONTENT_ERRORS, connect
from ledger.postgres.locks import Lock, lock_transaction, try_lock_session
from ledger.projection import delivery_stats, expected_bills, store
from ledger.projection.fold_bills import (
    Projected,
    add_bill,
    add_independent,
    add_parked,
)
from ledger.projection.gc_pause import gc_paused
from ledger.projection.histories import whole_histories
from ledger.projection.read_event import BillEvents, read_row
from ledger.projection.rows import Rows, no_rows
from ledger.projection.store import LIVE

BATCH = 2000
"""Events in one transaction at the most."""

BATCH_MEMORY = 64 * 1024 * 1024
"""Bytes that the new events of one transaction may take; the last may exceed it."""

POLL_SECONDS = 1.0
"""How long the projector waits for a hint before it looks by itself."""

RETRY_SECONDS = 2.0
"""How long it waits after an error, and between two tries to lead."""

_log = structlog.get_logger(__name__)


class Batch(Struct, frozen=True):
    """What one transaction did: how many events it took, how many bills it folded."""

    events: int
    bills: int
    position: int


def lock_projection(connection: Connection) -> None:
    """Keep everybody else from writing state until the caller's transaction ends.

    Taken before any state table is named: a rebuild that swaps the schemas holds it too, and a name
    that was looked up before the swap would lead into the old tables.
    """
    lock_transaction(connection, Lock.PROJECTION)


@gc_paused()
def follow_once(
    connection: Connection, upto: int, *, schema: str = LIVE, limit: int = BATCH
) -> Batch:
    """Fold what the next events touch, none after position `upto`, in a transaction of its own.

    Raises `FoldVersionError` if the state is of another version, `StateError` if it is not there,
    `CheckpointError` if somebody else moved the checkpoint, and `psycopg.Error`; the state and its
    checkpoint are then as they were.
    """
    began = time.monotonic()
    traced: list[tuple[bytes, int]] | None = (
        [] if tracing.spans is not None and schema == LIVE else None
    )
    with connection.transaction():
        lock_projection(connection)
        checkpoint = store.read_checkpoint(connection, schema)
        store.check_version(checkpoint)
        projected = Projected.nothing()
        touched: dict[Key, BillEvents] = {}
        position, events = checkpoint.position, 0
        may_have_gaps = is_distributed(connection)
        for row in read.after(connection, checkpoint.position, upto, limit):
            if projected.memory > BATCH_MEMORY:
                continue  # left to the next batch
            if may_have_gaps and row.position != position + 1:
                continue  # what a node has not committed yet comes first
            position, events = row.position, events + 1
            _take(projected, touched, row)
            if traced is not None and row.source == "webhook":
                traced.append((row.digest, row.position))
        if not events:
            return Batch(0, 0, position)
        for (lab_id, _), history in touched.items():
            projected.delivery_stats.add(lab_id, history.events)
        store.copy_in(connection, schema, projected.rows)
        store.forget_erased(connection, schema, projected.erased)
        delivery_stats.write(connection, schema, projected.delivery_stats)
        expected_bills.write(connection, schema, projected.expected)
        integrators = fold_bills(connection, touched, checkpoint.position, schema=schema)
        integrators |= {one.decision.integrator_id for one in projected.expected}
        expected_bills.settle(connection, schema, sorted(integrators))
        store.move_checkpoint(connection, schema, checkpoint, position)
        connection.execute("SELECT ledger.hint('ledger_state')")
    if traced and tracing.spans is not None:
        with suppress(Exception):  # no trace is worth a fold
            tracing.spans.folded(traced, time.monotonic() - began)
    return Batch(events, len(touched), position)


def _take(projected: Projected, touched: dict[Key, BillEvents], row: LogRow) -> None:
    """Add a new row of the log to what its bill and the state get from it."""
    event = read_row(row)
    add_independent(projected, row, event)
    if not isinstance(event, (LoggedEvent, LoggedDecision)):
        return
    history = touched.setdefault((row.lab_id, row.bill_id), BillEvents())
    projected.memory -= history.memory
    dropped = history.add(event, len(row.body))
    projected.delivery_stats.add(row.lab_id, dropped)
    projected.memory += history.memory


def fold_bills(
    connection: Connection, new: dict[Key, BillEvents], before: int, *, schema: str = LIVE
) -> set[str]:
    """Fold bills from these new events and all that they had up to the position `before`.

    In the caller's transaction. Returns the integrator ids that their events name.
    """
    integrators: set[str] = set()
    for histories, known in whole_histories(connection, new, before):
        integrators.update(*(history.integrator_ids for history in histories.values()))
        try:
            with connection.transaction():
                store.replace_bills(connection, schema, sorted(known), _fold(histories))
        except CONTENT_ERRORS:
            # The rows of one of them are what PostgreSQL will not take: find it.
            _replace_one_by_one(connection, schema, histories)
    return integrators


def _fold(histories: dict[Key, BillEvents]) -> Rows:
    rows = no_rows()
    for key, history in histories.items():
        add_bill(rows, key, history)
    return rows


def _replace_one_by_one(
    connection: Connection, schema: str, histories: dict[Key, BillEvents]
) -> None:
    for key, history in histories.items():
        rows = no_rows()
        add_bill(rows, key, history)
        try:
            with connection.transaction():
                store.replace_bills(connection, schema, [key], rows)
        except CONTENT_ERRORS as error:
            if history.is_empty:  # there was nothing to write that could be refused
                raise
            _log.error("bill parked", lab_id=key[0], bill_id=key[1], error=str(error))
            rows = no_rows()
            add_parked(rows, key, history, error)
            store.replace_bills(connection, schema, [key], rows)


class Observer:
    """Is told what a projector does; this one does nothing with it."""

    def leads(self, *, now: bool) -> None:
        """Take that the projector leads now, or no longer does."""

    def folded(self, batch: Batch, seconds: float) -> None:
        """Take what one transaction did, and how long it took."""

    def failed(self) -> None:
        """Take that the projector begins anew after an error."""


class Projector:
    """Follows the log until `stop`, also across outages of the database."""

    def __init__(self, url: str, observer: Observer | None = None) -> None:
        self._url = url
        self._observer = observer or Observer()
        self._stop = threading.Event()
        self._last_words = ""

    def stop(self) -> None:
        """Ask it to end after the batch at hand; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Follow until `stop` is called."""
        while not self._stop.is_set():
            try:
                self._lead()
            except (psycopg.Error, LedgerError) as error:
                self._observer.leads(now=False)
                self._observer.failed()
                self._report(error)
                self._stop.wait(RETRY_SECONDS)
        _log.info("projector stopped")

    def _lead(self) -> None:
        """Become the leader, or find that another is; then follow as long as all goes well."""
        with connect(self._url, "projector") as connection:
            read.keep_to_indexes(connection)
            while not self._is_leader(connection):
                if self._is_news("waits"):
                    _log.info("another projector leads; waiting for its turn")
                if self._stop.wait(RETRY_SECONDS):
                    return
            connection.execute("LISTEN ledger_event_log")
            if self._is_news("leads"):
                _log.info("projector leads")
            self._observer.leads(now=True)
            while not self._stop.is_set():
                self._drain(connection)
                for _ in connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                    pass

    def _is_leader(self, connection: Connection) -> bool:
        return try_lock_session(connection, Lock.LEADER)

    def _drain(self, connection: Connection) -> None:
        # In this order: a rebuild may end between the two, and the head only grows.
        position = store.read_checkpoint(connection).position
        head = read.head(connection)
        if position > head:
            raise StateError(
                f"the state is at position {position} and the log ends at {head}: run "
                "`ledger rebuild`"
            )
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                batch = follow_once(connection, head)
            except CheckpointError:
                self._stop.wait(0.1)  # a rebuild moved it; go on from where it is now
                continue
            if not batch.events:
                return
            self._observer.folded(batch, time.monotonic() - began)
            _log.debug("folded", events=batch.events, bills=batch.bills, position=batch.position)

    def _report(self, error: Exception) -> None:
        words = one_line(error)
        if not self._is_news(words):
            return
        if isinstance(error, (DatabaseUnavailableError, psycopg.OperationalError)):
            _log.warning("database away; trying again", error=words)
        else:
            _log.error("the projector stands still; trying again", error=words)

    def _is_news(self, words: str) -> bool:
        """Return whether what happens has changed; a repetition is not logged."""
        is_news, self._last_words = words != self._last_words, words
        return is_news
