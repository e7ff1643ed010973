"""Rebuilds the state from the log next to the live one, then swaps the two.

The new tables stand in a schema of their own until one transaction swaps the names, so that readers
are served throughout. The next rebuild goes on with what an interrupted one has left in it.
"""

import time
from collections.abc import Callable, Iterator
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
from ledger.postgres.cluster import choose, is_distributed, keep_ddl_local
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, try_lock_session, unlock_session
from ledger.projection import delivery_stats, expected_bills, parallel, shares, store
from ledger.projection.fold_share import Job, fold_share
from ledger.projection.projector import fold_bills, follow_once, lock_projection
from ledger.projection.read_event import BillEvents
from ledger.projection.shares import Begun, Counts
from ledger.projection.store import LIVE, NEXT

OLD = "state_old"

NEAR = 2_000
"""Events. The rebuild catches up without stopping the live projector until it is this near."""

AHEAD = 64
"""Shares that are cut before they are needed, for those who join."""

LOOK_SECONDS = 1.0
"""How often it is looked what others have done."""

WAIT_SECONDS = 0.2
"""Between two looks at shares that others fold."""

_NOT_COMMITTED = (
    "a part of the log cannot be seen: a node has not committed it yet, or the log has a gap. Run "
    "it again in a minute, and `ledger verify` if that does not help"
)

_log = structlog.get_logger(__name__)


class Rebuilt(Struct, frozen=True):
    """What a rebuild made: from how many events, up to which position.

    `before`: how many of the events an interrupted rebuild had folded.
    """

    counts: Counts
    position: int
    before: int


Load = Callable[[Connection, Callable[[int, int], None]], None]
"""Copies an archive into `state_next.archived_event`, and tells how many events of how many."""


def rebuild(
    url: str,
    *,
    processes: int,
    started_at: datetime,
    on_progress: Callable[[int, int], None],
    load: Load | None = None,
    anew: bool = False,
) -> Rebuilt:
    """Rebuild the state of all bills. `on_progress` gets the events done and those to do.

    Other machines may take part (`join`). A rebuild that was interrupted is gone on with, unless
    it is to begin `anew`. With `load`, the events that an archive holds are read from there, and
    only those after it from the log. Raises `RebuildError` if another rebuild runs, and what the
    database raises; the live state is untouched then.
    """
    with connect(url, "rebuild") as connection:
        read.keep_to_indexes(connection)
        keep_ddl_local(connection)
        _claim(connection)
        loaded = 0
        begun = None if load or anew else _interrupted(connection)
        before = shares.done(connection).counts.events if begun else 0
        if begun is None:
            upto = read.head(connection)
            begun = _begin(connection, upto, started_at, archived=bool(load))
            loaded = _load(connection, load, upto, on_progress) if load else 0
        if not begun.is_folded:
            progress = _Progress(connection, begun, loaded, on_progress)
            _fold_shares(url, connection, begun, processes, progress)
            _complete(connection, begun)
        counts = shares.done(connection).counts
        _analyze(connection)
        _catch_up(connection)
        position = _swap(connection)
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(OLD)))
        # The server would let go of it a moment after the connection is closed.
        unlock_session(connection, Lock.REBUILD)
    return Rebuilt(counts, position, before)


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


def _claim(connection: Connection) -> None:
    if not try_lock_session(connection, Lock.REBUILD):
        raise RebuildError("another rebuild or a verify runs; run it again when that is done")


def _interrupted(connection: Connection) -> Begun | None:
    """Return a rebuild of this version that was interrupted; None if there is none to go on with.

    One from an archive is none: the archive may have been put elsewhere, and is soon loaded again.
    """
    begun = shares.begun(connection)
    if begun is None or begun.archived or begun.upto > read.head(connection):
        return None
    _drop(connection, OLD)
    _log.info("going on with an interrupted rebuild", upto=begun.upto)
    return begun


def _begin(connection: Connection, upto: int, started_at: datetime, *, archived: bool) -> Begun:
    for schema in (NEXT, OLD):  # what an interrupted rebuild left
        _drop(connection, schema)
    with connection.transaction():
        try:
            store.create(connection, NEXT)
            store.run_file(connection, NEXT, "rebuild")
        except psycopg.errors.InsufficientPrivilege as error:  # as after a restore
            raise SchemaError(
                f"no schema can be made in this database: {error}. Run `ledger migrate`"
            ) from error
        return shares.begin(connection, upto, started_at, archived=archived)


def _drop(connection: Connection, schema: str) -> None:
    """Drop what a rebuild left, also if a machine that took part in it stands still."""
    command = SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema))
    while True:
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '2s'")
                connection.execute(command)
        except psycopg.errors.LockNotAvailable:
            _end_stalled(connection)
        else:
            return


def _end_stalled(connection: Connection) -> None:
    for pid in shares.end_stalled(connection):
        _log.warning("ended a session that stood still with a share", pid=pid)


class _Progress:
    """Tells how many events are done, by this machine at once and by others now and then."""

    def __init__(
        self,
        connection: Connection,
        begun: Begun,
        loaded: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._connection = connection
        self._upto = begun.upto
        self._loaded = loaded
        self._on_progress = on_progress
        self._events = self._told = shares.done(connection).counts.events
        self._looked = time.monotonic()

    def add(self, counts: Counts) -> None:
        """Take what this machine has just done."""
        self._events += counts.events
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self.look()
        else:
            self._tell()

    def look(self) -> int:
        """Take what all have done; return how many shares are left."""
        done = shares.done(self._connection)
        self._events, self._looked = done.counts.events, time.monotonic()
        self._tell()
        return done.left

    def _tell(self) -> None:
        if self._events == self._told:
            return
        self._told = self._events
        self._connection.execute("UPDATE state_next.rebuild SET events_done = %s", (self._events,))
        self._on_progress(self._loaded + self._events, self._loaded + self._upto)


def _fold_shares(
    url: str, connection: Connection, begun: Begun, processes: int, progress: _Progress
) -> None:
    job = Job(begun.upto, begun.archived)
    jobs = _cut(connection, begun, job)
    for counts in parallel.run(url, "rebuild", jobs, fold_share, processes=processes):
        if counts:
            progress.add(counts)
    # What is left now is taken by others, who may give it up.
    while progress.look():
        if not fold_share(connection, job):
            _end_stalled(connection)
            time.sleep(WAIT_SECONDS)


def _cut(connection: Connection, begun: Begun, job: Job) -> Iterator[Job]:
    """Cut the log into shares, ahead of those who take them; yield a job for each."""
    last = shares.last_cut(connection)
    after = last.last if last else None
    if not begun.is_cut and not (last and after is None):
        given = 0
        for count, chunk in enumerate(parallel.chunks(connection, log=job.log, after=after), 1):
            shares.cut(connection, chunk)
            # Every second one is left for others, until enough are.
            if count - given > min(AHEAD, count // 2):
                given += 1
                yield job
    shares.all_cut(connection)
    for _ in range(shares.done(connection).left):
        yield job


def _complete(connection: Connection, begun: Begun) -> None:
    """Give the tables what is counted across shares, and their indexes, in one transaction."""
    counts = shares.done(connection).counts
    if counts.events != begun.upto and is_distributed(connection):
        raise RebuildError(_NOT_COMMITTED)
    if counts.events != begun.upto:
        _log.error("the log has gaps: run `ledger verify`", events=counts.events, head=begun.upto)
    with connection.transaction():
        connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
        store.create_indexes(connection, NEXT)
        delivery_stats.write(connection, NEXT, shares.delivery_stats(connection))
        expected_bills.settle(connection, NEXT, None)
        checkpoint = store.read_checkpoint(connection, NEXT)
        store.move_checkpoint(connection, NEXT, checkpoint, begun.upto)
        connection.execute("UPDATE state_next.rebuild SET is_folded = true")


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
    view = choose(connection, "archived_log", "archived_log_on_cluster")
    store.run_file(connection, NEXT, view)
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
        connection.execute("DROP TABLE state_next.rebuild, state_next.rebuild_share")
        connection.execute("DROP TABLE IF EXISTS state_next.archived_event CASCADE")
        connection.execute("ALTER SCHEMA state_next RENAME TO state")
        store.replace_views(connection)
        connection.execute("SELECT ledger.hint('ledger_state')")
    return position
