"""Connections to PostgreSQL: all are made here, with the same limits and the service's role."""

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool

from ledger.errors import DatabaseUnavailableError, SchemaError

SERVICE_ROLE = "ledger_service"

CONNECT_TIMEOUT = 3
"""Seconds. Several tries must fit into the ten seconds that the sender waits for its answer."""

CONTENT_ERRORS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.NotSupportedError,
    psycopg.errors.ProgramLimitExceeded,
)
"""What a statement's own values can cause. All else, such as a full disk, is not their fault."""

# A host that is gone without a word is noticed within about ten seconds.
_LIMITS: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
    "client_encoding": "utf8",
}


def connect(url: str, purpose: str) -> Connection:
    """Open a connection in autocommit mode, acting as the service's role.

    `purpose` shows in pg_stat_activity. Raises `DatabaseUnavailableError` or `SchemaError`.
    """
    connection = connect_as_login(url, purpose)
    try:
        connection.execute(_as_service())
    except psycopg.Error as error:
        connection.close()
        raise role_error(error) from error
    return connection


def connect_as_login(url: str, purpose: str) -> Connection:
    """Open a connection in autocommit mode with the rights of whoever logs in: for migrations."""
    try:
        return psycopg.connect(
            url, autocommit=True, application_name=f"ledger {purpose}", **_LIMITS
        )
    except psycopg.Error as error:
        raise unavailable(error) from error


async def connect_async(url: str, purpose: str) -> AsyncConnection:
    """Do what `connect` does, without blocking."""
    try:
        connection = await AsyncConnection.connect(
            url, autocommit=True, application_name=f"ledger {purpose}", **_LIMITS
        )
    except psycopg.Error as error:
        raise unavailable(error) from error
    try:
        await connection.execute(_as_service())
    except psycopg.Error as error:
        await connection.close()
        raise role_error(error) from error
    return connection


def make_pool(
    url: str,
    purpose: str,
    *,
    size: int,
    configure: Callable[[AsyncConnection], Awaitable[None]],
) -> AsyncConnectionPool:
    """Make a pool, to be opened by the caller, of connections like those of `connect`.

    Who waits for a connection for `CONNECT_TIMEOUT` seconds gets `psycopg_pool.PoolTimeout`.
    """

    async def prepare(connection: AsyncConnection) -> None:
        await connection.execute(_as_service())
        await configure(connection)

    return AsyncConnectionPool(
        url,
        kwargs={"autocommit": True, "application_name": f"ledger {purpose}", **_LIMITS},
        min_size=1,
        max_size=size,
        timeout=CONNECT_TIMEOUT,
        reconnect_timeout=1,
        configure=prepare,
        open=False,
    )


def _as_service() -> str:
    return (
        f"SET ROLE {SERVICE_ROLE};"
        # The driver gives times the session's zone.
        "SET TIME ZONE 'UTC';"
        # Who waits for a lock must see afterwards what its holder committed.
        "SET default_transaction_isolation = 'read committed'"
    )


def unavailable(error: psycopg.Error) -> DatabaseUnavailableError:
    """Say in one line that the database is away."""
    words = " ".join(str(error).split()) or type(error).__name__
    return DatabaseUnavailableError(
        f"the database does not answer: {words}. Check LEDGER_DATABASE_URL and that PostgreSQL runs"
    )


def role_error(error: psycopg.Error) -> SchemaError | DatabaseUnavailableError:
    """Say why the service's role cannot be taken."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return SchemaError(
            f"the database user may not act as {SERVICE_ROLE}: "
            f"run GRANT {SERVICE_ROLE} TO that user in the database"
        )
    if isinstance(error, psycopg.errors.InvalidParameterValue):  # no such role
        return SchemaError("the database was not prepared for Ledger: run `ledger migrate`")
    return unavailable(error)
