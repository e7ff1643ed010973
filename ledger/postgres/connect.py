"""Opens every connection to PostgreSQL, with the same limits, settings and role."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import Query
from psycopg_pool import AsyncConnectionPool

from ledger.errors import DatabaseUnavailableError, PoolerError, SchemaError, one_line
from ledger.postgres.pooler import refuse_lent_sessions
from ledger.postgres.session import hold_settings

Role = Literal["ledger_service", "ledger_intake"]
"""What a process acts as; `ledger/postgres/sql/grants.sql` says what each may do."""

SERVICE_ROLE: Role = "ledger_service"
INTAKE_ROLE: Role = "ledger_intake"

CONNECT_TIMEOUT = 3
"""Seconds. Several tries must fit into the ten seconds that the sender waits for its answer."""

CONTENT_ERRORS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.NotSupportedError,
    psycopg.errors.ProgramLimitExceeded,
)
"""What a statement's own values can cause. Any other error, such as a full disk, is not theirs."""

# An unreachable host is noticed within about ten seconds.
_SESSIONS_ARE_OURS: set[str] = set()
"""URLs of which this process found out that no pooler lends out their sessions."""

_LIMITS: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8_000,
    "client_encoding": "utf8",
}


_role: Role = SERVICE_ROLE


def act_as(role: Role) -> None:
    """Make every connection that this process opens from now on act as a role.

    The role is the process's, not an argument, so that no part of an intake can forget it.
    """
    global _role  # noqa: PLW0603 -- see above
    _role = role


def connect(url: str, purpose: str) -> Connection:
    """Open a connection in autocommit mode that acts as the process's role.

    `purpose` appears in pg_stat_activity. Raises `DatabaseUnavailableError`, `PoolerError` or
    `SchemaError`.
    """
    connection = connect_as_login(url, purpose)
    try:
        connection.execute(_as_role())
    except psycopg.Error as error:
        connection.close()
        raise role_error(error) from error
    return connection


def connect_as_login(url: str, purpose: str) -> Connection:
    """Open a connection in autocommit mode with the login's own rights: for migrations.

    Raises `DatabaseUnavailableError` or `PoolerError`.
    """

    def open_one() -> Connection:
        return psycopg.connect(
            url, autocommit=True, application_name=f"ledger {purpose}", **_LIMITS
        )

    try:
        connection = open_one()
    except psycopg.Error as error:
        raise unavailable(error) from error
    try:
        if url not in _SESSIONS_ARE_OURS:  # before a pooler could hand on what is set below
            refuse_lent_sessions(connection, open_one)
            _SESSIONS_ARE_OURS.add(url)
        connection.execute(_HOLD_SETTINGS)
    except psycopg.Error as error:
        connection.close()
        raise unavailable(error) from error
    except PoolerError:
        connection.close()
        raise
    return connection


async def connect_async(url: str, purpose: str) -> AsyncConnection:
    """Do what `connect` does, without blocking."""
    try:
        connection = await AsyncConnection.connect(
            url, autocommit=True, application_name=f"ledger {purpose}", **_LIMITS
        )
    except psycopg.Error as error:
        raise unavailable(error) from error
    try:
        await _prepare(connection)
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
    """Make a pool of connections like those of `connect`; the caller opens it.

    A caller that waits `CONNECT_TIMEOUT` seconds for a connection gets `psycopg_pool.PoolTimeout`.
    """

    async def prepare(connection: AsyncConnection) -> None:
        await _prepare(connection)
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


async def _prepare(connection: AsyncConnection) -> None:
    await connection.execute(_HOLD_SETTINGS)
    await connection.execute(_as_role())


_HOLD_SETTINGS: Query = cast("Query", hold_settings())


def _as_role() -> Query:
    return cast("Query", f"SET ROLE {_role}")


_HINT = re.compile(r" Is the server running [^?]*\?")


def unavailable(error: psycopg.Error) -> DatabaseUnavailableError:
    """Say in one line that the database cannot be reached."""
    # The library asks what to check, as the sentence after it does.
    reason = _HINT.sub("", one_line(error)) or type(error).__name__
    return DatabaseUnavailableError(
        f"the database does not answer: {reason}. "
        "Check LEDGER_DATABASE_URL and that PostgreSQL runs"
    )


def role_error(error: psycopg.Error) -> SchemaError | DatabaseUnavailableError:
    """Say why the process's role cannot be taken."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return SchemaError(
            f"the database user may not act as {_role}: "
            f"run GRANT {_role} TO that user in the database"
        )
    if isinstance(error, psycopg.errors.InvalidParameterValue):  # no such role
        return SchemaError("the database was not prepared for Ledger: run `ledger migrate`")
    return unavailable(error)
