"""What the handlers work with: the pool of connections, the watch on the checkpoint."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeVar

import psycopg
import psycopg_pool
from litestar import Request
from litestar.datastructures import State
from msgspec import Struct
from psycopg import Connection, sql
from psycopg_pool import AsyncConnectionPool

from ledger.api.checkpoint_watcher import CheckpointWatcher
from ledger.credentials import Secrets
from ledger.errors import DatabaseUnavailableError
from ledger.operations.policy import Policy
from ledger.postgres.connect import connect
from ledger.settings import Settings

Parameters = Sequence[Any] | Mapping[str, Any]

T = TypeVar("T")

READ_SECONDS = 5.0
"""How long a read waits for the database, its second try included."""

DESK_SECONDS = 60
"""How long a statement of the desk may take: a report on very much takes its time."""

PATIENCE = 10.0
"""Seconds that a decision waits for the state to catch up with the log."""


class Services(Struct, frozen=True):
    """Made once for a process."""

    settings: Settings
    pool: AsyncConnectionPool
    watch: CheckpointWatcher
    admin_keys: Secrets
    url: str
    policy: Policy

    async def fetch(
        self, query: sql.SQL | sql.Composed, parameters: Parameters = ()
    ) -> list[tuple[Any, ...]]:
        """Return all rows of one query; one query is one snapshot.

        Raises `DatabaseUnavailableError` if the database does not answer within `READ_SECONDS`.
        """
        # Not awaited when its time is over: a database that stands still does not even let the
        # driver cancel its query.
        reading = asyncio.create_task(self._fetch(query, parameters))
        try:
            done, _ = await asyncio.wait({reading}, timeout=READ_SECONDS)
        finally:
            reading.cancel()
        if not done:
            raise DatabaseUnavailableError(f"no answer within {READ_SECONDS:.0f} s")
        return reading.result()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do work of the desk in a thread, with a connection of its own."""

        def do() -> T:
            with closing(connect(self.url, "desk")) as connection:
                connection.execute(f"SET statement_timeout = '{DESK_SECONDS}s'")
                return work(connection)

        return await asyncio.to_thread(do)

    async def _fetch(
        self, query: sql.SQL | sql.Composed, parameters: Parameters
    ) -> list[tuple[Any, ...]]:
        try:
            return await self._fetch_once(query, parameters)
        except psycopg_pool.PoolTimeout:  # no connection to be had: the next try would wait again
            raise
        except psycopg.OperationalError:
            # A connection was lost while it lay in the pool, and others may have been with it.
            await self.pool.check()
            return await self._fetch_once(query, parameters)

    async def _fetch_once(
        self, query: sql.SQL | sql.Composed, parameters: Parameters
    ) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(query, parameters)
            return await cursor.fetchall()


def services_of(state: State) -> Services:
    """Return the services of an application."""
    services = state["services"]
    assert isinstance(services, Services)  # noqa: S101 -- put there at the start
    return services


async def provide_services(request: Request[Any, Any, Any]) -> Services:
    """Provide the services to a handler."""
    return services_of(request.app.state)
