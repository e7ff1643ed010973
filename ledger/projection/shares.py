"""The shares of a rebuild: who folds which bills, on any number of machines.

A share is a chunk of whole bills. Whoever folds it holds its row locked until the transaction that
writes its bills is committed. So the lock is the lease: it ends with the session, nothing is
written twice, and what a killed process had begun is undone and taken by another.
"""

from collections.abc import Iterator
from datetime import datetime

import psycopg
from msgspec import Struct
from psycopg import Connection

from ledger import __version__
from ledger.model.bill import FOLD_VERSION
from ledger.postgres.locks import Lock, held
from ledger.projection.delivery_stats import DeliveryStats
from ledger.projection.parallel import Chunk

STALLED_SECONDS = 300
"""After which a session that holds a share and is not heard of is ended: its machine stands still.
One that lives fetches some events, or writes some rows, every few seconds."""


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


class Begun(Struct, frozen=True):
    """A rebuild of the events up to a position, of the log or of an archive and the log after it.

    `is_cut`: all its shares are known. `is_folded`: all are done, and the tables have indexes.
    """

    upto: int
    archived: bool
    is_cut: bool
    is_folded: bool


class Share(Struct, frozen=True):
    """A chunk to be folded, by its number."""

    share_id: int
    chunk: Chunk


class Done(Struct, frozen=True):
    """How many shares are not done yet, and what those that are amount to."""

    left: int
    counts: Counts


def begin(connection: Connection, upto: int, started_at: datetime, *, archived: bool) -> Begun:
    """Note a rebuild that begins, in its new schema."""
    connection.execute(
        "INSERT INTO state_next.rebuild"
        " (events_done, events_total, started_at, ledger_version, is_archived)"
        " VALUES (0, %s, %s, %s, %s)",
        (upto, started_at, __version__, archived),
    )
    return Begun(upto, archived, is_cut=False, is_folded=False)


def begun(connection: Connection) -> Begun | None:
    """Return the rebuild that another process of this version has begun; None if there is none."""
    try:
        row = connection.execute(
            "SELECT r.events_total, r.is_archived, r.is_cut, r.is_folded"
            " FROM state_next.rebuild r, state_next.checkpoint c"
            " WHERE r.ledger_version = %s AND c.fold_version = %s",
            (__version__, FOLD_VERSION),
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return None
    return Begun(*row) if row else None


def is_led(connection: Connection) -> bool:
    """Return whether a process leads a rebuild now."""
    row = connection.execute(f"SELECT {held(Lock.REBUILD)}".encode()).fetchone()
    return bool(row and row[0])


def cut(connection: Connection, chunk: Chunk) -> None:
    """Add a share. They are cut in order, so that an interrupted rebuild knows where it was."""
    connection.execute(
        "INSERT INTO state_next.rebuild_share"
        " (after_lab_id, after_bill_id, last_lab_id, last_bill_id) VALUES (%s, %s, %s, %s)",
        (*(chunk.after or (None, None)), *(chunk.last or (None, None))),
    )


def all_cut(connection: Connection) -> None:
    """Note that no share will be added."""
    connection.execute("UPDATE state_next.rebuild SET is_cut = true")


def last_cut(connection: Connection) -> Chunk | None:
    """Return the last share that was cut; None if none was."""
    row = connection.execute(f"{_SHARES} ORDER BY share_id DESC LIMIT 1".encode()).fetchone()
    return _share(row).chunk if row else None


def take(connection: Connection) -> Share | None:
    """Take a share for the caller's transaction; None if none is free."""
    row = connection.execute(
        f"{_SHARES} WHERE NOT is_done ORDER BY share_id LIMIT 1 FOR UPDATE SKIP LOCKED".encode()
    ).fetchone()
    return _share(row) if row else None


def finish(connection: Connection, share: Share, counts: Counts, heard: DeliveryStats) -> None:
    """Note, in the transaction that took it, that a share is done.

    What is counted across bills is kept beside it: processes that added it to the same rows would
    wait for each other.
    """
    connection.execute(
        "UPDATE state_next.rebuild_share SET is_done = true,"
        " events = %s, bills = %s, unreadable = %s, parked = %s, delivery_stats = %s"
        " WHERE share_id = %s",
        (
            counts.events,
            counts.bills,
            counts.unreadable,
            counts.parked,
            heard.to_bytes(),
            share.share_id,
        ),
    )


def done(connection: Connection) -> Done:
    """Return what is done by all who take part."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE NOT is_done), coalesce(sum(events), 0)::bigint,"
        " coalesce(sum(bills), 0)::bigint, coalesce(sum(unreadable), 0)::bigint,"
        " coalesce(sum(parked), 0)::bigint FROM state_next.rebuild_share"
    ).fetchone()
    left, *counts = row or (0, 0, 0, 0, 0)
    return Done(left, Counts(*counts))


def delivery_stats(connection: Connection) -> DeliveryStats:
    """Return how the events of all shares arrived."""
    heard = DeliveryStats.none()
    for (stats,) in connection.execute(
        "SELECT delivery_stats FROM state_next.rebuild_share WHERE delivery_stats IS NOT NULL"
    ):
        heard.merge(DeliveryStats.from_bytes(stats))
    return heard


def end_stalled(connection: Connection) -> Iterator[int]:
    """End the sessions that hold shares of a machine that stands still; yield their process ids.

    Sessions of another login than this one's cannot be looked into, and are not ended.
    """
    with connection.transaction():
        connection.execute("SET LOCAL ROLE NONE")  # the login's own sessions, whatever they act as
        for (pid,) in connection.execute(_STALLED, (STALLED_SECONDS,)).fetchall():
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
            yield pid


_SHARES = """
SELECT share_id, after_lab_id, after_bill_id, last_lab_id, last_bill_id
FROM state_next.rebuild_share
"""

_STALLED = """
SELECT a.pid
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE
    l.relation = to_regclass('state_next.rebuild_share')
    AND l.mode = 'RowShareLock'
    AND a.pid <> pg_backend_pid()
    AND a.wait_event_type = 'Client'
    AND a.state_change < clock_timestamp() - make_interval(secs => %s)
"""


def _share(row: tuple[int, str | None, str | None, str | None, str | None]) -> Share:
    number, after_lab, after_bill, last_lab, last_bill = row
    after = None if after_lab is None or after_bill is None else (after_lab, after_bill)
    last = None if last_lab is None or last_bill is None else (last_lab, last_bill)
    return Share(number, Chunk(after, last))
