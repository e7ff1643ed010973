"""How far the log is sealed and signed, in one look."""

from datetime import datetime

from msgspec import Struct

from ledger.seals.tiles import SIZE

STATUS = f"""
SELECT
    s.size,
    ledger.received_after(s.size) AS oldest_not_sealed,
    c.tree_size,
    c.sealed_at
FROM ({SIZE}) AS s (size)
LEFT JOIN LATERAL (
    SELECT tree_size, sealed_at
    FROM ledger.seal_checkpoint
    ORDER BY tree_size DESC, sealed_at DESC
    LIMIT 1
) c ON true
"""  # noqa: S608 -- our own query


class SealStatus(Struct, frozen=True):
    """A row of `STATUS`: what is sealed, and the newest signed checkpoint if there is one."""

    sealed: int
    oldest_not_sealed: datetime | None
    signed: int | None
    signed_at: datetime | None

    def lag_seconds(self, now: datetime) -> float:
        """How long the oldest event that is not sealed has waited."""
        if self.oldest_not_sealed is None:
            return 0.0
        return max(0.0, round((now - self.oldest_not_sealed).total_seconds(), 3))
