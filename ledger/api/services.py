"""What the handlers share: database connections, threads, the checkpoint watcher, the policy."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import psycopg
import psycopg_pool
import structlog
from litestar import Request
from litestar.datastructures import State
from msgspec import Struct
from prometheus_client.core import Metric
from psycopg import Connection, sql
from psycopg_pool import AsyncConnectionPool

from ledger.api.authentication import Authenticator
from ledger.api.checkpoint_watcher import CheckpointWatcher
from ledger.api.rate_limit import RateLimit
from ledger.api.shared_call import SharedCall
from ledger.api.threads import Threads
from ledger.errors import (
    BusyError,
    DatabaseUnavailableError,
    ReplicaUnavailableError,
    StateError,
    one_line,
)
from ledger.eventlog.group_commit import GroupCommit
from ledger.operations.policy import Policy
from ledger.operations.silence import Hearings
from ledger.postgres.connect import connect
from ledger.settings import Settings

Parameters = Sequence[Any] | Mapping[str, Any]

T = TypeVar("T")

_log = structlog.get_logger(__name__)

READ_SECONDS = 5.0
"""How long a query may take, its second attempt included."""

REPORT_SECONDS = 60
"""How long one statement of a report may take."""

PATIENCE = 10.0
"""Seconds that a decision waits for the projection to catch up with the log."""


_POSITION = sql.SQL("SELECT position FROM state.checkpoint")


class Services(Struct, frozen=True):
    """Made once per process, and once more for the primary where a replica answers the reads."""

    settings: Settings
    pool: AsyncConnectionPool
    """Connections to `read_url`."""
    lane: GroupCommit | None
    """None in a process that takes no deliveries."""
    watch: CheckpointWatcher
    """Of the state at `read_url`."""
    authenticator: Authenticator
    rates: RateLimit
    url: str
    """Where decisions are recorded."""
    read_url: str
    """Where reads are answered from: a replica, or the same."""
    policy: Policy
    reports: Threads
    """For reads that need more than one query. Few, because each competes with the event loop."""
    decisions: Threads
    """For operators' decisions and imports, so that no report holds them up."""
    flabs: Threads
    """For calls to Flabs, which may be slow, or away."""
    gauges: Threads
    """For what `/metrics` reads: it is open to everybody, and must hold up no report."""
    scrapes: SharedCall[list[Metric]]
    """What `/metrics` measures, by whether it names labs."""
    pages: Threads
    """For writing long pages of the log."""
    hearings: Hearings
    """How unusual the silence of each lab is."""
    primary: "Services | None" = None
    """What reads from the primary, if these read from a replica."""
    needed: int | None = None
    """The position that a connection's state must have reached before it is read."""

    @property
    def on_primary(self) -> "Services":
        """What reads from the database that takes the writes.

        For what must be seen at once, such as a key that was just made or revoked, and for what is
        not in the log, such as how long the receivers were alive, which a replica has late.
        """
        return self.primary or self

    async def fetch(
        self, query: sql.SQL | sql.Composed, parameters: Parameters | None = ()
    ) -> list[tuple[Any, ...]]:
        """Return all rows of one query; one query is one snapshot.

        Parameters are None for a query that holds its values: a % in them is no placeholder.

        Raises `DatabaseUnavailableError` if the database does not answer within `READ_SECONDS`,
        and `ReplicaUnavailableError` if a replica fails in any such way.
        """
        if not self.primary:
            return await self._fetch_in_time(query, parameters)
        try:
            return await self._fetch_in_time(query, parameters)
        except (psycopg.OperationalError, DatabaseUnavailableError) as error:
            raise _of_replica(error) from error

    async def _fetch_in_time(
        self, query: sql.SQL | sql.Composed, parameters: Parameters | None
    ) -> list[tuple[Any, ...]]:
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

    async def run(self, work: Callable[[Connection], T], threads: Threads | None = None) -> T:
        """Read in a thread, with a connection of its own. Raises `BusyError`, or as `fetch`.

        The thread is one of `reports`, unless others are given.
        """
        threads = threads or self.reports

        def read() -> T:
            with closing(connect(self.read_url, "report")) as connection:
                connection.execute(f"SET statement_timeout = '{REPORT_SECONDS}s'")
                if self.needed is not None:
                    _check_reached(connection.execute(_POSITION).fetchall(), self.needed)
                return work(connection)

        if not self.primary:
            return await threads.run(read)
        try:
            return await threads.run(read)
        except BusyError:
            raise
        except (psycopg.OperationalError, DatabaseUnavailableError) as error:
            raise _of_replica(error) from error

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
        for threads in (self.reports, self.decisions, self.flabs, self.gauges, self.pages):
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
            if self.needed is not None:
                await cursor.execute(_POSITION)
                _check_reached(await cursor.fetchall(), self.needed)
            # Without parameters, a percent sign is one: a query may hold its values itself.
            await cursor.execute(query, parameters or None)
            return await cursor.fetchall()


def _check_reached(rows: Sequence[tuple[Any, ...]], needed: int) -> None:
    """Raise `ReplicaUnavailableError` unless the state is at a position or after it.

    The watcher has seen it there, but a replica can be replaced by one that is behind.
    """
    position = rows[0][0] if rows else 0
    if position < needed:
        raise ReplicaUnavailableError(
            f"the replica is at position {position} and has not reached {needed}"
        )


def _of_replica(error: Exception) -> ReplicaUnavailableError:
    if isinstance(error, ReplicaUnavailableError):
        return error
    _log.warning("replica away", error=one_line(error))
    if isinstance(error, psycopg.errors.SerializationFailure):  # its replay had to go on
        return ReplicaUnavailableError(
            "the replica gave the query up, to follow its primary: try again"
        )
    return ReplicaUnavailableError(
        "the replica that this server reads from does not answer: try again"
    )


def services_of(state: State) -> Services:
    """Return the services of an application."""
    services = state["services"]
    assert isinstance(services, Services)  # noqa: S101 -- set when the application starts
    return services


async def provide_primary(request: Request[Any, Any, Any]) -> Services:
    """Provide to a handler the services that read from the primary."""
    return services_of(request.app.state).on_primary


async def provide_services(request: Request[Any, Any, Any]) -> Services:
    """Provide the services to a handler."""
    return services_of(request.app.state)
