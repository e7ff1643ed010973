"""Folds the bills of one share of a rebuild, in one transaction."""

from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.projection import expected_bills, parallel, shares, store
from ledger.projection.fold_bills import MOST_MEMORY, Projected, add_history
from ledger.projection.gc_pause import gc_paused
from ledger.projection.shares import Counts
from ledger.projection.store import NEXT

ARCHIVED = SQL("state_next.archived_log")


class Job(Struct, frozen=True):
    """The events that a rebuild folds: up to a position, as the log or an archive has them."""

    upto: int
    archived: bool = False

    @property
    def log(self) -> SQL:
        """The relation that the events are read from."""
        return ARCHIVED if self.archived else parallel.LOG


@gc_paused()
def fold_share(connection: Connection, job: Job) -> Counts | None:
    """Take a share and fold its bills into the tables of the rebuild; None if none is free."""
    projected = Projected.nothing()
    counts = Counts()
    with connection.transaction():
        share = shares.take(connection)
        if share is None:
            return None
        for key, history in parallel.histories(connection, share.chunk, job.upto, job.log):
            counts += Counts(events=add_history(projected, key, history))
            if projected.memory > MOST_MEMORY:
                counts += _write(connection, projected)
        counts += _write(connection, projected)
        # Once a share and in one order: two writers must not wait for each other.
        expected_bills.write(connection, NEXT, projected.expected)
        shares.finish(connection, share, counts, projected.delivery_stats)
    return counts


def _write(connection: Connection, projected: Projected) -> Counts:
    """Write the rows of the bills that were folded."""
    rows = projected.take_rows()
    store.copy_in(connection, NEXT, rows)
    return Counts(
        bills=len(rows["bill"]),
        unreadable=len(rows["unreadable_event"]),
        parked=len(rows["parked_bill"]),
    )
