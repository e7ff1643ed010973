"""Finds out whether a pooler between us and PostgreSQL lends out our session between transactions.

Ledger's sessions hold settings, a role and advisory locks. A pooler in transaction mode would give
them to its other clients and take them away from us.
"""

import select
import time
from collections.abc import Callable
from contextlib import closing

import psycopg
from psycopg import Connection
from psycopg.pq import ExecStatus

from ledger.errors import PoolerError

ROUNDS = 16
"""Times that it is tried: other clients of a pooler can hide what it does, half of the time."""

PATIENCE = 2.0
"""Seconds. A second session that waits longer has no server of its own: none was lent out."""


def refuse_lent_sessions(connection: Connection, open_another: Callable[[], Connection]) -> None:
    """Raise `PoolerError` if the connection's session is not the connection's alone.

    Nothing is set, locked or left behind. Raises `psycopg.Error`.
    """
    server = _server(connection)
    if server == connection.info.backend_pid:  # PostgreSQL itself answered the connection
        return
    for _ in range(ROUNDS):
        with closing(open_another()) as other:  # whatever it waits for
            taken = _server_in_transaction(other)
            if taken == server or _server(connection) != server:
                raise PoolerError(
                    "a connection pooler (such as pgbouncer in transaction mode) lends the "
                    "database session to other clients between transactions, and with it "
                    "Ledger's settings, role and locks. Set pool_mode = session for this "
                    "database, or connect LEDGER_DATABASE_URL to PostgreSQL itself"
                )
        if taken is None:
            return


def _server(connection: Connection) -> int:
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    assert row  # noqa: S101 -- a function's result is one row
    return int(row[0])


def _server_in_transaction(connection: Connection) -> int | None:
    """Begin a transaction and return the id of its server process; None if it waits too long."""
    raw = connection.pgconn
    raw.send_query(b"BEGIN; SELECT pg_catalog.pg_backend_pid()")
    deadline = time.monotonic() + PATIENCE
    found: int | None = None
    while True:
        while raw.is_busy():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([raw.socket], [], [], left)[0]:
                return None
            raw.consume_input()
        result = raw.get_result()
        if result is None:
            return found
        if result.status == ExecStatus.FATAL_ERROR:  # a pooler of statements refuses to begin
            words = result.error_message.decode(errors="replace")
            if "pooling" in words:
                raise PoolerError(
                    f"a connection pooler does not let Ledger begin a transaction: {words.strip()}"
                )
            raise psycopg.OperationalError(words)
        if result.status == ExecStatus.TUPLES_OK:
            found = int(result.get_value(0, 0) or 0)
