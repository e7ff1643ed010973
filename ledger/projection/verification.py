"""Records when the log and the state were verified, and what was found (`ledger.verification`)."""

from datetime import datetime

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection

from ledger.errors import LedgerError, one_line
from ledger.postgres.connect import connect
from ledger.projection.verify import Verified

_RECORD = """
INSERT INTO ledger.verification (verified_at, head, bills, difference)
VALUES (clock_timestamp(), %s, %s, %s)
"""

_LAST = """
SELECT v.verified_at, v.difference
FROM ledger.verification v
ORDER BY v.verification_id DESC
LIMIT 1
"""


class Verification(Struct, frozen=True):
    """When a verification was done, and the first difference in words."""

    verified_at: datetime
    difference: str | None


def record_verification(url: str, found: Verified) -> None:
    """Record what a verification found; only warn if the database does not take it.

    A verification is worth as much without the record, and may run on a standby.
    """
    words = found.difference.words if found.difference else None
    _record(url, found.head, found.bills, words)


def record_comparison(url: str, agreed: int, difference: str) -> None:
    """Record that the log is not what was sealed, as `record_verification` does.

    `agreed` is the last size up to which it is. No bill was compared.
    """
    _record(url, agreed, 0, difference)


def _record(url: str, head: int, bills: int, difference: str | None) -> None:
    try:
        with connect(url, "verify") as connection:
            connection.execute(_RECORD, (head, bills, difference))
    except (psycopg.Error, LedgerError) as error:
        log = structlog.get_logger(__name__)
        log.warning("that the log was verified could not be recorded", error=one_line(error))


def read_last_verification(connection: Connection) -> Verification | None:
    """Return the newest record, None if there is none."""
    row = connection.execute(_LAST).fetchone()
    return Verification(*row) if row else None
