"""Reads the whole log with several processes, a chunk of whole bills at a time.

Memory depends on the size of a chunk and the number of processes, not on the log.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import groupby, islice
from operator import itemgetter
from typing import TypeVar

from msgspec import Struct
from psycopg import Connection, ServerCursor
from psycopg.sql import SQL, Composable, Composed, Literal

from ledger.errors import LedgerError
from ledger.eventlog import read
from ledger.eventlog.read import COLUMNS, Key, LogRow
from ledger.postgres.cluster import is_distributed
from ledger.postgres.connect import connect
from ledger.processes import end_with_parent

CHUNK_EVENTS = 20_000
"""About how many events a chunk has: enough to make a COPY worth it, few enough for memory."""

FETCH = 100
"""Events that are taken from the connection at a time: few enough for the processor's cache."""

FETCH_BYTES = 4 * 1024 * 1024
"""Bytes of bodies taken at a time, if the next bodies are as long as the last."""

LOG = SQL("ledger.logged_event")
"""Where events are read from; a rebuild from an archive has another relation of these columns."""

_BODY = LogRow._fields.index("body")
_KEY = itemgetter(LogRow._fields.index("lab_id"), LogRow._fields.index("bill_id"))

Job = TypeVar("Job")
Result = TypeVar("Result")


class Chunk(Struct, frozen=True):
    """All bills after the key `after` up to and with `last`; None: from the first, to the last."""

    after: Key | None
    last: Key | None

    def where(self) -> Composable:
        """Return the condition on `lab_id` and `bill_id`."""
        conditions: list[Composable] = [SQL("true")]
        if self.after:
            conditions.append(_compare(">", self.after))
        if self.last:
            conditions.append(_compare("<=", self.last))
        return SQL(" AND ").join(conditions)


def chunks(
    connection: Connection,
    *,
    events: int = CHUNK_EVENTS,
    log: SQL = LOG,
    after: Key | None = None,
) -> Iterator[Chunk]:
    """Cut a log, or what it has after a key, into chunks of about `events` events along its key."""
    if log == LOG and is_distributed(connection):
        yield from _sampled_chunks(connection, events, after)
        return
    while True:
        where = Chunk(after, None).where()
        query = SQL(
            "SELECT lab_id, bill_id FROM {} WHERE {} ORDER BY lab_id, bill_id OFFSET {} LIMIT 1"
        ).format(log, where, Literal(events))
        row = connection.execute(query).fetchone()
        last = (row[0], row[1]) if row else None
        yield Chunk(after, last)
        if last is None:
            return
        after = last


def _sampled_chunks(connection: Connection, events: int, after: Key | None) -> Iterator[Chunk]:
    """Cut a distributed log at the keys of every so many positions.

    To count off along the key, each node would send as many keys as all of them have to skip.
    """
    row = connection.execute("SELECT ledger.last_position()").fetchone()
    positions = list(range(events, (row[0] if row else 0) + 1, events))
    query = "SELECT lab_id, bill_id FROM ledger.event_log WHERE position = ANY(%s::bigint[])"
    keys: list[Key] = sorted(set(connection.execute(query, (positions,)).fetchall()))
    bounds: list[Key | None] = [after, *(key for key in keys if not after or key > after), None]
    yield from map(Chunk, bounds, bounds[1:])


def histories(
    connection: Connection, chunk: Chunk, upto: int, log: SQL = LOG
) -> Iterator[tuple[Key, Iterator[LogRow]]]:
    """Yield each bill of a chunk, in order, with its events up to a position, read as they come.

    Needs a transaction; other statements may run in between.
    """
    query = SQL(
        "SELECT {columns} FROM {log} WHERE {where} AND position + 0 <= {upto}"
        " ORDER BY lab_id, bill_id"
    ).format(columns=SQL(COLUMNS), log=log, where=chunk.where(), upto=Literal(upto))
    # In parts, for a chunk can be one key with any number of events: those that name no bill.
    with connection.cursor("histories") as cursor:
        cursor.execute(query, binary=True)
        yield from groupby(_fetched(cursor), key=_KEY)


def _fetched(cursor: ServerCursor) -> Iterator[LogRow]:
    count = min(10, FETCH)
    while rows := cursor.fetchmany(count):
        size = sum(len(row[_BODY]) for row in rows)
        fitting = FETCH_BYTES * len(rows) // max(size, 1)
        count = max(1, min(fitting, 4 * count, FETCH))
        yield from map(LogRow._make, rows)


def run(
    url: str,
    purpose: str,
    jobs: Iterable[Job],
    work: Callable[..., Result],
    *,
    processes: int,
    prepare: str = "",
) -> Iterator[Result]:
    """Yield the result of `work` for each job, as they end, done by several processes.

    This process is one of them, and works while the others start. `work` must be importable; its
    arguments are a connection, which the process has for itself, and the job. `prepare` is
    SQL that is run on each connection first. Raises what a job raised, and `LedgerError` if a
    process was killed; other jobs are given up.
    """
    others = processes - 1
    pool = ProcessPoolExecutor(
        max(others, 1),  # none is started that gets no job
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(url, purpose, prepare),
    )
    waiting = iter(jobs)
    running: set[Future[Result]] = set()
    try:
        with ExitStack() as stack:
            mine = _connect(url, purpose, prepare)
            # Not rolled back: an interrupted stream still holds its lock.
            stack.callback(mine.close)
            ready = [pool.submit(_be_ready) for _ in range(others)]
            while True:
                # Only as many are handed out as keep the others busy, once they are there: what
                # waits for them in the end, this process could have done.
                keep = 2 * sum(one.done() for one in ready)
                for job in islice(waiting, max(0, keep - len(running))):
                    running.add(pool.submit(_work, work, job))
                own = next(waiting, None)
                if own is not None:
                    yield work(mine, own)
                elif not running:
                    return
                patience = None if own is None else 0
                done, running = wait(running, patience, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
    except BrokenProcessPool as error:
        raise LedgerError(f"a process of {purpose} was killed; run it again") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_connection: list[Connection] = []
"""The connection of a started process, once it has one."""


def _begin(url: str, purpose: str, prepare: str) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    # For the life of the process.
    _connection.append(_connect(url, purpose, prepare))


def _connect(url: str, purpose: str, prepare: str) -> Connection:
    connection = connect(url, purpose)
    read.keep_to_indexes(connection)  # a chunk is a range of the primary key
    if prepare:
        connection.execute(prepare.encode())
    return connection


def _be_ready() -> None:
    """Show that the process has begun."""


def _work(work: Callable[..., Result], job: Job) -> Result:
    return work(_connection[0], job)


def _compare(operator: str, key: Key) -> Composed:
    return SQL("(lab_id, bill_id) {} ({}, {})").format(
        SQL(operator), Literal(key[0]), Literal(key[1])
    )
