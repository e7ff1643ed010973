"""How far the state is, in one look."""

from datetime import datetime

from msgspec import Struct

from ledger.postgres.locks import Lock, held

STATUS = f"""
SELECT
    c.fold_version,
    c.position,
    greatest(c.position, ledger.last_position()) AS head,
    ledger.received_after(c.position) AS oldest_not_folded,
    (SELECT count(*) FROM state.parked_bill) AS parked,
    to_regclass('state_next.rebuild') IS NOT NULL AND {held(Lock.REBUILD)} AS rebuild_runs
FROM state.checkpoint c
"""  # noqa: S608 -- our own condition

REBUILD = "SELECT events_done, events_total, started_at FROM state_next.rebuild"

PARKED = "SELECT lab_id, bill_id, position, error FROM state.parked_bill ORDER BY 1, 2 LIMIT 100"


class StatusRow(Struct, frozen=True):
    """A row of `STATUS`."""

    fold_version: int
    position: int
    head: int
    oldest_not_folded: datetime | None
    parked: int
    rebuild_runs: bool

    @property
    def lag_events(self) -> int:
        """How many events of the log are not in the state yet."""
        return self.head - self.position

    def lag_seconds(self, now: datetime) -> float:
        """How long the oldest of them has waited."""
        if self.oldest_not_folded is None:
            return 0.0
        return max(0.0, round((now - self.oldest_not_folded).total_seconds(), 3))
