"""Takes part in a rebuild that runs on another machine."""

import time
from collections.abc import Callable, Iterator

import psycopg
from psycopg import Connection

from ledger.errors import RebuildError
from ledger.postgres.connect import connect
from ledger.projection import parallel, shares
from ledger.projection.fold_share import Job, fold_share
from ledger.projection.shares import Begun, Counts

LOOK_SECONDS = 0.2
"""How long it waits for a share to be cut, or to be given up by another."""


class Joined(Counts, frozen=True):
    """What this process and its children folded, in how many shares."""

    shares: int = 0

    def with_share(self, counts: Counts) -> "Joined":
        """Add a share."""
        both = self + counts
        return Joined(both.events, both.bills, both.unreadable, both.parked, self.shares + 1)


def join(url: str, *, processes: int, on_progress: Callable[[int, int], None]) -> Joined:
    """Fold shares of the rebuild that runs until none is left.

    `on_progress` gets the events that all have done and those to do. Raises `RebuildError` if none
    runs, or it is interrupted.
    """
    folded = Joined()
    with connect(url, "rebuild") as connection:
        work = _Work(connection, on_progress)
        try:
            for counts in parallel.run(
                url, "rebuild", work.jobs(), fold_share, processes=processes
            ):
                work.found_none = counts is None
                if counts:
                    folded = folded.with_share(counts)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            pass  # it is done, and its tables have other names
    return folded


class _Work:
    """Gives out jobs, each of which takes whatever share is free, until all shares are done."""

    def __init__(self, connection: Connection, on_progress: Callable[[int, int], None]) -> None:
        self._connection = connection
        self._on_progress = on_progress
        self.found_none = False
        """Whether the last job found no share free."""
        begun = shares.begun(connection) if shares.is_led(connection) else None
        if begun is None:
            raise RebuildError(
                "no rebuild of this version of Ledger runs, or it has only begun: start one with "
                "`ledger rebuild`, then run this on other machines"
            )
        self._job = Job(begun.upto, begun.archived)

    def jobs(self) -> Iterator[Job]:
        """Yield as long as there may be something to do."""
        looked = 0.0
        while True:
            if self.found_none:
                time.sleep(LOOK_SECONDS)
            if self.found_none or time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                begun = shares.begun(self._connection)
                if begun is None or self._is_done(begun):
                    return
            yield self._job

    def _is_done(self, begun: Begun) -> bool:
        done = shares.done(self._connection)
        self._on_progress(done.counts.events, begun.upto)
        if begun.is_cut and not done.left:
            return True
        if shares.is_led(self._connection) or shares.begun(self._connection) is None:
            return False
        raise RebuildError(
            "the rebuild was interrupted: run `ledger rebuild` again, which goes on with it"
        )
