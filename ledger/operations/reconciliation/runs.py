"""The reconciliation as a job: what the last run had seen, so that the next tells what is new."""

from contextlib import closing
from datetime import UTC, datetime

from ledger.operations.reconciliation.report import Since
from ledger.postgres.connect import connect

_LAST = "SELECT as_of, position FROM reconciliation_run ORDER BY as_of DESC, position DESC LIMIT 1"
_NOTE = "INSERT INTO reconciliation_run (as_of, position) VALUES (%s, %s) ON CONFLICT DO NOTHING"


def last_run(url: str) -> Since | None:
    """Return what the last finished run was asked, None before the first: then all is new."""
    with closing(connect(url, "reconcile")) as connection:
        row = connection.execute(_LAST).fetchone()
    return Since(row[0].astimezone(UTC), row[1]) if row else None


def note_run(url: str, as_of: datetime, position: int) -> None:
    """Note a run that was finished."""
    with closing(connect(url, "reconcile")) as connection:
        connection.execute(_NOTE, (as_of, position))
