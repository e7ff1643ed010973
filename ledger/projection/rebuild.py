"""Rebuilds the state from the log next to the live one, then swaps the two.

The new tables stand in a schema of their own until one transaction swaps the names, so that readers
are served throughout, and an interrupted rebuild leaves nothing but a schema that the next drops.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from ledger.errors import RebuildError, SchemaError, StateError
from ledger.eventlog import read
from ledger.eventlog.read import Key
from ledger.postgres.cluster import is_distributed, keep_ddl_local
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, try_lock_session, unlock_session
from ledger.projection import delivery_stats, expected_bills, parallel, store
from ledger.projection.delivery_stats import DeliveryStats
from ledger.projection.fold_bills import MOST_MEMORY, Projected, add_history
from ledger.projection.gc_pause import gc_paused
from ledger.projection.parallel import Chunk
from ledger.projection.projector import fold_bills, follow_once, lock_projection
from ledger.projection.read_event import BillEvents
from ledger.projection.store import LIVE, NEXT

OLD = "state_old"

ARCHIVED = SQL("state_next.archived_log")

NEAR = 2_000
"""Events. The rebuild catches up without stopping the live projector until it is this near."""

_NOT_COMMITTED = (
    "a part of the log cannot be seen: a node has not committed it yet, or the log has a gap. Run "
    "it again in a minute, and `ledger verify` if that does not help"
)

_log = structlog.get_logger(__name__)


class Counts(Struct, frozen=True):
    """What became of events: folded, unreadable, or of a type that is only kept."""

    events: int = 0
    bills: int = 0
    unreadable: int = 0
    parked: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.events + other.events,
            self.bills + other.bills,
            self.unreadable + other.unreadable,
            self.parked + other.parked,
        )


class Rebuilt(Struct, frozen=True):
    """What a rebuild made: from how many events, up to which position."""

    counts: Counts
    position: int


class Job(Struct, frozen=True):
    """A chunk to fold from its events up to a position, as the log or an archive has them."""

    chunk: Chunk
    upto: int
    archived: bool = False


Load = Callable[[Connection, Callable[[int, int], None]], None]
"""Copies an archive into `state_next.archived_event`, and tells how many events of how many."""


def rebuild(
    url: str,
    *,
    processes: int,
    started_at: datetime,
    on_progress: Callable[[int, int], None],
    load: Load | None = None,
) -> Rebuilt:
    """Rebuild the state of all bills. `on_progress` gets the events done and those to do.

    With `load`, the events that an archive holds are read from there, and only those after it from
    the log. Raises `RebuildError` if another rebuild runs, and what the database raises; the live
    state is untouched then.
    """
    with connect(url, "rebuild") as connection:
        read.keep_to_indexes(connection)
        keep_ddl_local(connection)
        _claim(connection)
        upto = read.head(connection)
        _make_next(connection, upto, started_at)
        loaded = _load(connection, load, upto, on_progress) if load else 0
        log = ARCHIVED if load else parallel.LOG
        counts = Counts()
        jobs = (
            Job(chunk, upto, archived=bool(load)) for chunk in parallel.chunks(connection, log=log)
        )
        heard = DeliveryStats.none()
        chunks = parallel.run(url, "rebuild", jobs, fold_chunk, processes=processes)
        for done, arrived in chunks:
            counts += done
            heard.merge(arrived)
            connection.execute("UPDATE state_next.rebuild SET events_done = %s", (counts.events,))
            on_progress(loaded + counts.events, loaded + upto)
        if counts.events != upto and is_distributed(connection):
            raise RebuildError(_NOT_COMMITTED)
        if counts.events != upto:
            _log.error("the log has gaps: run `ledger verify`", events=counts.events, head=upto)
        connection.execute("SET maintenance_work_mem = '256MB'")
        store.create_indexes(connection, NEXT)
        delivery_stats.write(connection, NEXT, heard)
        expected_bills.settle(connection, NEXT, None)
        store.move_checkpoint(connection, NEXT, store.read_checkpoint(connection, NEXT), upto)
        _analyze(connection)
        _catch_up(connection)
        position = _swap(connection)
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(OLD)))
        # The server would let go of it a moment after the connection is closed.
        unlock_session(connection, Lock.REBUILD)
    return Rebuilt(counts, position)


def rebuild_bill(url: str, key: Key) -> str | None:
    """Fold one bill again in the live state; return why it has no state, None if it has."""
    with connect(url, "rebuild") as connection:
        read.keep_to_indexes(connection)
        with connection.transaction():
            lock_projection(connection)
            checkpoint = store.read_checkpoint(connection)
            store.check_version(checkpoint)
            fold_bills(connection, {key: BillEvents()}, checkpoint.position)
            connection.execute("SELECT ledger.hint('ledger_state')")
        row = connection.execute(
            "SELECT b.bill_id IS NOT NULL, p.error FROM (VALUES (%s, %s)) AS k (lab_id, bill_id)"
            " LEFT JOIN state.bill b USING (lab_id, bill_id)"
            " LEFT JOIN state.parked_bill p USING (lab_id, bill_id)",
            key,
        ).fetchone()
    folded, error = row or (False, None)
    if folded:
        return None
    lab_id, bill_id = key
    if error is not None:
        return f"bill {bill_id} of lab {lab_id} is parked: {error}"
    return f"the log has no readable event of bill {bill_id} of lab {lab_id}"


@gc_paused()
def fold_chunk(connection: Connection, job: Job) -> tuple[Counts, DeliveryStats]:
    """Fold the bills of a chunk into the tables of the rebuild, in one transaction.

    What is counted across bills is returned: processes that added it to the same rows would wait
    for each other.
    """
    projected = Projected.nothing()
    counts = Counts()
    with connection.transaction():
        log = ARCHIVED if job.archived else parallel.LOG
        for key, history in parallel.histories(connection, job.chunk, job.upto, log):
            counts += Counts(events=add_history(projected, key, history))
            if projected.memory > MOST_MEMORY:
                counts += _write(connection, projected)
        counts += _write(connection, projected)
        # Once a chunk and in one order: two writers must not wait for each other.
        expected_bills.write(connection, NEXT, projected.expected)
    return counts, projected.delivery_stats


def _write(connection: Connection, projected: Projected) -> Counts:
    """Write the rows of the bills that were folded."""
    rows = projected.take_rows()
    store.copy_in(connection, NEXT, rows)
    return Counts(
        bills=len(rows["bill"]),
        unreadable=len(rows["unreadable_event"]),
        parked=len(rows["parked_bill"]),
    )


def _claim(connection: Connection) -> None:
    if not try_lock_session(connection, Lock.REBUILD):
        raise RebuildError("another rebuild or a verify runs; run it again when that is done")


def _make_next(connection: Connection, upto: int, started_at: datetime) -> None:
    for schema in (NEXT, OLD):  # what an interrupted rebuild left
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
    with connection.transaction():
        try:
            store.create(connection, NEXT)
            store.run_file(connection, NEXT, "rebuild")
        except psycopg.errors.InsufficientPrivilege as error:  # as after a restore
            raise SchemaError(
                f"no schema can be made in this database: {error}. Run `ledger migrate`"
            ) from error
        connection.execute(
            "INSERT INTO state_next.rebuild (events_done, events_total, started_at)"
            " VALUES (0, %s, %s)",
            (upto, started_at),
        )


def _load(
    connection: Connection, load: Load, upto: int, on_progress: Callable[[int, int], None]
) -> int:
    """Copy the archive next to the new tables; return how many events it has."""
    store.run_file(connection, NEXT, "archived_event")
    loaded = 0

    def tell(done: int, total: int) -> None:
        nonlocal loaded
        loaded = total
        on_progress(done, total + upto)

    load(connection, tell)
    store.run_file(connection, NEXT, "archived_log")
    connection.execute("ANALYZE state_next.archived_event")
    return loaded


def _analyze(connection: Connection) -> None:
    for table in store.TABLES:
        connection.execute(SQL("ANALYZE {}.{}").format(Identifier(NEXT), Identifier(table)))


def _catch_up(connection: Connection) -> None:
    while True:
        head = read.head(connection)
        if head - store.read_checkpoint(connection, NEXT).position <= NEAR:
            return
        follow_once(connection, head, schema=NEXT)


def _swap(connection: Connection) -> int:
    """Fold the rest and exchange the schemas' names, in one transaction; return the position."""
    head = read.head(connection)  # outside: inside it would hold the lane until the swap is done
    with connection.transaction():
        lock_projection(connection)
        with suppress(StateError):  # what is lost needs no care
            # Readers must never see the position go back.
            head = max(head, store.read_checkpoint(connection, LIVE).position)
        if store.schema_exists(connection, LIVE):
            connection.execute("ALTER SCHEMA state RENAME TO state_old")
        while follow_once(connection, head, schema=NEXT).events:
            pass
        position = store.read_checkpoint(connection, NEXT).position
        if position < head and is_distributed(connection):
            raise RebuildError(_NOT_COMMITTED)
        connection.execute("DROP TABLE state_next.rebuild")
        connection.execute("DROP TABLE IF EXISTS state_next.archived_event CASCADE")
        connection.execute("ALTER SCHEMA state_next RENAME TO state")
        store.replace_views(connection)
        connection.execute("SELECT ledger.hint('ledger_state')")
    return position
