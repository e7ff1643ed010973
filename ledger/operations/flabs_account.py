"""What is kept of the account at Flabs: when it was last looked at, how that ended, its labs."""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct
from psycopg import Connection


class AccountCheck(Struct, frozen=True):
    """The last look at the account: when, when it last succeeded, and since when it fails.

    `failure` says why, without a word of what Flabs answered. Times are UTC.
    """

    account: str
    checked_at: datetime
    succeeded_at: datetime | None
    failed_since: datetime | None
    failure: str | None


_LAST = """
SELECT c.account, c.checked_at, c.succeeded_at, c.failed_since, c.failure
FROM ledger.flabs_check c
"""

# One row: that of the account that was looked at last.
_FORGET_OTHERS = "DELETE FROM ledger.flabs_check c WHERE c.account <> %s"

_NOTE = """
INSERT INTO ledger.flabs_check AS c (account, checked_at, succeeded_at, failed_since, failure)
VALUES (%(account)s, %(at)s, %(succeeded_at)s, %(failed_at)s, %(failure)s)
ON CONFLICT (account) DO UPDATE SET
    checked_at = excluded.checked_at,
    succeeded_at = coalesce(excluded.succeeded_at, c.succeeded_at),
    failed_since = CASE
        WHEN excluded.failed_since IS NOT NULL THEN coalesce(c.failed_since, excluded.failed_since)
    END,
    failure = excluded.failure
"""

_REMOVE_LABS = "DELETE FROM ledger.flabs_lab l WHERE l.lab_id <> ALL(%s)"

_LIST_LABS = """
INSERT INTO ledger.flabs_lab AS l (lab_id, name, first_listed_at)
SELECT n.lab_id, n.name, %s
FROM unnest(%s::text[], %s::text[]) AS n (lab_id, name)
ON CONFLICT (lab_id) DO UPDATE SET name = excluded.name
"""


def read_check(connection: Connection) -> AccountCheck | None:
    """Return the last look at the account; None if there was none."""
    row = connection.execute(_LAST).fetchone()
    if row is None:
        return None
    account, *times, failure = row
    checked_at, succeeded_at, failed_since = (at and at.astimezone(UTC) for at in times)
    return AccountCheck(account, checked_at, succeeded_at, failed_since, failure)


def note_labs(
    connection: Connection, account: str, labs: Sequence[tuple[str, str | None]], at: datetime
) -> None:
    """Keep the labs of the account, ids and names, as listed at a time."""
    ids = [lab_id for lab_id, _ in labs]
    with connection.transaction():
        _note(connection, account, at, failure=None)
        connection.execute(_REMOVE_LABS, (ids,))
        connection.execute(_LIST_LABS, (at, ids, [name for _, name in labs]))


def note_failure(connection: Connection, account: str, failure: str, at: datetime) -> None:
    """Keep why a look at the account failed; the labs stay as they were listed before."""
    with connection.transaction():
        _note(connection, account, at, failure=failure)


def _note(connection: Connection, account: str, at: datetime, *, failure: str | None) -> None:
    forgotten = connection.execute(_FORGET_OTHERS, (account,)).rowcount
    if forgotten:  # the labs were those of another account
        connection.execute(_REMOVE_LABS, ([],))
    values = {
        "account": account,
        "at": at,
        "succeeded_at": None if failure else at,
        "failed_at": at if failure else None,
        "failure": failure,
    }
    connection.execute(_NOTE, values)
