"""What waits in a spool, as gauges for Prometheus."""

from datetime import UTC, datetime
from pathlib import Path

from ledger.spool.folder import set_aside_in, waiting_in

GAUGES = {
    "ledger_spool_deliveries": "Deliveries that wait on disk for the database.",
    "ledger_spool_bytes": "Bytes on disk of the deliveries that wait there.",
    "ledger_spool_oldest_seconds": "How long the oldest delivery in the spool has waited.",
    "ledger_spool_set_aside": "Damaged or refused records of the spool, kept for a person.",
}


def measure(spool: Path | None) -> dict[str, float]:
    """Return the gauges' values, of all servers that share the folder; zeros without one."""
    if spool is None:
        return dict.fromkeys(GAUGES, 0.0)
    waiting = waiting_in(spool)
    oldest = (datetime.now(UTC) - waiting.oldest).total_seconds() if waiting.oldest else 0.0
    numbers = (waiting.deliveries, waiting.bytes, max(0.0, oldest), set_aside_in(spool))
    return dict(zip(GAUGES, numbers, strict=True))
