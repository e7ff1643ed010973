"""Runs of the reconciliation job, recorded so that the next run reports only what is new."""

from contextlib import closing
from datetime import UTC, datetime

import msgspec
from psycopg import Connection

from ledger.operations.policy import Policy
from ledger.operations.read_models import SinceLastRun
from ledger.operations.reconciliation.report import Question, Since, reconcile
from ledger.postgres.connect import connect

_LAST = """
SELECT as_of, position
FROM ledger.reconciliation_run
ORDER BY as_of DESC, position DESC
LIMIT 1
"""
_NOTE = (
    "INSERT INTO ledger.reconciliation_run (as_of, position) VALUES (%s, %s) ON CONFLICT DO NOTHING"
)


def last_run(url: str) -> Since | None:
    """Return the time and position of the last complete run, None before the first."""
    with closing(connect(url, "reconcile")) as connection:
        row = connection.execute(_LAST).fetchone()
    return Since(row[0].astimezone(UTC), row[1]) if row else None


def note_run(url: str, as_of: datetime, position: int) -> None:
    """Record a complete run."""
    with closing(connect(url, "reconcile")) as connection:
        connection.execute(_NOTE, (as_of, position))


def compare_with_last_run(
    connection: Connection, policy: Policy, question: Question
) -> tuple[Question, SinceLastRun | None]:
    """Return a question with its position fixed, and what its answer leaves out as not new.

    The second is None if the question does not ask for news alone.
    """
    if question.since is None:
        return question, None
    everything = msgspec.structs.replace(question, since=None)
    with reconcile(connection, policy, everything) as (whole, _):
        since_last_run = SinceLastRun(question.since.as_of, whole.totals["overdue"])
        return msgspec.structs.replace(question, position=whole.position), since_last_run
