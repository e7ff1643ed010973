"""How far the state is, in one look."""

from datetime import datetime

from msgspec import Struct

STATUS = """
SELECT
    c.fold_version,
    c.position,
    greatest(
        c.position,
        coalesce((SELECT position FROM event_log ORDER BY position DESC LIMIT 1), 0)
    ) AS head,
    (
        SELECT received_at FROM event_log WHERE position > c.position ORDER BY position LIMIT 1
    ) AS oldest_not_folded,
    (SELECT count(*) FROM state.parked_bill) AS parked,
    to_regclass('state_next.rebuild') IS NOT NULL AND EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND classid = 7402 AND objid = 5 AND mode = 'ExclusiveLock'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ) AS rebuild_runs
FROM state.checkpoint c
"""

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
