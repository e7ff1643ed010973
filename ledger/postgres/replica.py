"""Checks that a database is a streaming replica of another one."""

from contextlib import closing

import psycopg
import structlog

from ledger.errors import DatabaseUnavailableError, SettingsError, one_line
from ledger.postgres.connect import connect

# A replica is a copy of the files, and the identifier is in one of them.
_IDENTITY = "SELECT system_identifier, current_database() FROM pg_control_system()"

_log = structlog.get_logger(__name__)


def check_replica_if_reachable(primary: str, replica: str) -> None:
    """Raise `SettingsError` if a database is no copy of the primary; warn if that cannot be seen.

    Reads of any other database would be answered as if they were of this one.
    """
    try:
        found = [_identity(url) for url in (primary, replica)]
    except (DatabaseUnavailableError, psycopg.OperationalError) as error:
        _log.warning("starting without having seen the replica", error=one_line(error))
        return
    if found[0] != found[1]:
        raise SettingsError(
            f"LEDGER_READ_DATABASE_URL leads to a database {found[1][1]} that is no streaming "
            f"replica of {found[0][1]}, to which LEDGER_DATABASE_URL leads: name a replica of that "
            "server, and the same database in it"
        )


def _identity(url: str) -> tuple[int, str]:
    with closing(connect(url, "check")) as connection:
        row = connection.execute(_IDENTITY).fetchone()
    assert row  # noqa: S101 -- a function's result is one row
    return int(row[0]), str(row[1])
