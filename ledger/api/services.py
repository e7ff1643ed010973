"""What the handlers share: database connections, threads, the checkpoint watcher, the policy."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import psycopg
import psycopg_pool
from litestar import Request
from litestar.datastructures import State
from msgspec import Struct
from psycopg import Connection, sql
from psycopg_pool import AsyncConnectionPool

from ledger.api.authentication import Authenticator
from ledger.api.checkpoint_watcher import CheckpointWatcher
from ledger.api.rate_limit import RateLimit
from ledger.api.threads import Threads
from ledger.errors import DatabaseUnavailableError, StateError
from ledger.eventlog.group_commit import GroupCommit
from ledger.operations.policy import Policy
from ledger.postgres.connect import connect
from ledger.settings import Settings

Parameters = Sequence[Any] | Mapping[str, Any]

T = TypeVar("T")

READ_SECONDS = 5.0
"""How long a query may take, its second attempt included."""

REPORT_SECONDS = 60
"""How long one statement of a report may take."""

PATIENCE = 10.0
"""Seconds that a decision waits for the projection to catch up with the log."""


class Services(Struct, frozen=True):
    """Made once per process."""

    settings: Settings
    pool: AsyncConnectionPool
    lane: GroupCommit | None
    """None in a process that takes no deliveries."""
    watch: CheckpointWatcher
    authenticator: Authenticator
    rates: RateLimit
    url: str
    policy: Policy
    reports: Threads
    """For reads that need more than one query. Few, because each competes with the event loop."""
    decisions: Threads
    """For operators' decisions and imports, so that no report holds them up."""
    flabs: Threads
    """For calls to Flabs, which may be slow, or away."""
    pages: Threads
    """For writing long pages of the log."""

    async def fetch(
        self, query: sql.SQL | sql.Composed, parameters: Parameters | None = ()
    ) -> list[tuple[Any, ...]]:
        """Return all rows of one query; one query is one snapshot.

        Parameters are None for a query that holds its values: a % in them is no placeholder.

        Raises `DatabaseUnavailableError` if the database does not answer within `READ_SECONDS`.
        """
        # A cancelled query is not awaited: a database that hangs does not process the driver's
        # cancel request either.
        reading = asyncio.create_task(self._fetch(query, parameters))
        try:
            done, _ = await asyncio.wait({reading}, timeout=READ_SECONDS)
        finally:
            reading.cancel()
        if not done:
            raise DatabaseUnavailableError(f"no answer within {READ_SECONDS:.0f} s")
        return reading.result()

    async def fetch_state(
        self, query: sql.SQL | sql.Composed, parameters: Parameters = ()
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a query that begins with the row of state.checkpoint: one at least.

        Raises `StateError` if there is no such row.
        """
        if rows := await self.fetch(query, parameters):
            return rows
        raise StateError("state.checkpoint is empty: run `ledger rebuild`")

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Read in a thread, with a connection of its own. Raises `BusyError`."""

        def read() -> T:
            with closing(connect(self.url, "report")) as connection:
                connection.execute(f"SET statement_timeout = '{REPORT_SECONDS}s'")
                return work(connection)

        return await self.reports.run(read)

    @contextmanager
    def connected(self, purpose: str) -> Iterator[Connection]:
        """Give a thread a connection of its own."""
        with closing(connect(self.url, purpose)) as connection:
            yield connection

    async def decide(self, work: Callable[[], T]) -> T:
        """Record a decision in a thread. Raises `BusyError`."""
        return await self.decisions.run(work)

    def close(self) -> None:
        """Start no more work in threads."""
        for threads in (self.reports, self.decisions, self.flabs, self.pages):
            threads.close()

    async def _fetch(
        self, query: sql.SQL | sql.Composed, parameters: Parameters | None
    ) -> list[tuple[Any, ...]]:
        try:
            return await self._fetch_once(query, parameters)
        except psycopg_pool.PoolTimeout:  # a second attempt would wait for a connection again
            raise
        except psycopg.OperationalError:
            # This connection broke while it was idle in the pool; others may have as well.
            await self.pool.check()
            return await self._fetch_once(query, parameters)

    async def _fetch_once(
        self, query: sql.SQL | sql.Composed, parameters: Parameters | None
    ) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as connection:
            cursor = connection.cursor(binary=True)
            # Without parameters, a percent sign is one: a query may hold its values itself.
            await cursor.execute(query, parameters or None)
            return await cursor.fetchall()


def services_of(state: State) -> Services:
    """Return the services of an application."""
    services = state["services"]
    assert isinstance(services, Services)  # noqa: S101 -- set when the application starts
    return services


async def provide_services(request: Request[Any, Any, Any]) -> Services:
    """Provide the services to a handler."""
    return services_of(request.app.state)
