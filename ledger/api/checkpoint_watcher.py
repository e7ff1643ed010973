"""Watches the projection's checkpoint, so that requests can wait for a position.

It watches the database that the reads are answered from. A replica does not notify, so it is asked.
"""

import asyncio
from contextlib import suppress

import psycopg
import structlog
from psycopg import AsyncConnection

from ledger.errors import LedgerError
from ledger.postgres.cluster import IS_DISTRIBUTED
from ledger.postgres.connect import connect_async

POLL_SECONDS = 0.5
"""How long a lost notification can delay a waiting request."""

REPLICA_POLL_SECONDS = 0.05
"""How often a replica is asked, which notifies nobody."""

RETRY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class CheckpointWatcher:
    """Holds the checkpoint's position and wakes the requests that wait for it to move."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = (
            None  # a task without a reference may be collected
        )
        self.position = 0
        self.answers = False
        """Whether the database answered lately."""
        self.is_distributed = False
        """Whether its log is: see `ledger.postgres.cluster`."""
        self.closed = False

    def start(self) -> None:
        """Start watching."""
        self._task = asyncio.create_task(self._run(), name="watch")

    def close(self) -> None:
        """Wake all waiting requests for good; call this in the event loop."""
        self.closed = True
        if self._task:
            self._closing = asyncio.create_task(self._wake_all())

    async def stop(self) -> None:
        """Wake all waiting requests for good, and stop watching."""
        self.closed = True
        await self._wake_all()
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def reached(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109 -- a wait
        """Wait at most `timeout` seconds for a position; return whether it was reached."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(lambda: self.closed or self.position >= position)
        return self.position >= position

    async def moved(self, since: int, timeout: float) -> None:  # noqa: ASYNC109 -- a wait
        """Wait at most `timeout` seconds until the position differs from `since`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(lambda: self.closed or self.position != since)

    async def _wake_all(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def _run(self) -> None:
        while True:
            try:
                connection = await connect_async(self._url, "watch")
                async with connection:
                    pause = await _listen(connection)
                    self.is_distributed = await _is_distributed(connection)
                    while True:
                        await self._look(connection)
                        async for _ in connection.notifies(timeout=pause, stop_after=1):
                            pass
            except (psycopg.Error, LedgerError) as error:
                self.answers = False
                _log.debug("checkpoint watcher lost the database", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _look(self, connection: AsyncConnection) -> None:
        cursor = await connection.execute("SELECT position FROM state.checkpoint")
        row = await cursor.fetchone()
        self.answers = True
        if row and row[0] != self.position:
            self.position = row[0]
            await self._wake_all()


async def _is_distributed(connection: AsyncConnection) -> bool:
    cursor = await connection.execute(IS_DISTRIBUTED.encode())
    return await cursor.fetchone() == (True,)


async def _listen(connection: AsyncConnection) -> float:
    """Listen if the database notifies; return for how long to wait until the next look."""
    cursor = await connection.execute("SELECT pg_is_in_recovery()")
    if await cursor.fetchone() == (True,):
        return REPLICA_POLL_SECONDS
    await connection.execute("LISTEN ledger_state")
    return POLL_SECONDS
