"""The bills that changed lately, read once for all open streams."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from operator import attrgetter

import psycopg
import structlog
from msgspec import Struct

from ledger.api.checkpoint_watcher import CheckpointWatcher
from ledger.errors import DatabaseUnavailableError
from ledger.model.operators import Labs, concerns

MOST_STREAMS = 200
"""Streams that one process serves at a time."""

KEEP_ALIVE_SECONDS = 15.0
"""How often a comment is sent, so that proxies keep the stream and a dead client is noticed."""

CHECK_SECONDS = 5.0
"""How often a quiet stream checks whether the caller's key is still valid."""

PAUSE_SECONDS = 0.1
"""The shortest time between two reads of a stream, so that changes are sent in batches."""

RETRY_SECONDS = 1.0

PART = 500
"""Changes in one query."""

KEPT = 5_000
"""Changes kept in memory, of about 1 KB each."""

READERS = 2
"""Streams that may read old changes from the database at a time."""

_log = structlog.get_logger(__name__)


class Change(Struct, frozen=True):
    """A bill as it was after a change; `item` is its JSON."""

    position: int
    lab_id: str
    item: bytes


Read = Callable[[int, Labs, int], Awaitable[tuple[int, list[Change]]]]
"""Reads at most so many changes after a position, of some labs or of all, in order of position.

Returns the log position that the read reflects as well.
"""

Admitted = Callable[[], bool | None]
"""Tells whether the caller's key is still valid; None if that cannot be said now."""

_DATABASE_ERRORS = (
    DatabaseUnavailableError,
    psycopg.OperationalError,
    psycopg.errors.UndefinedTable,  # the state is missing: until the next rebuild
)

_position_of = attrgetter("position")


class ChangeFeed:
    """Serves changes to streams: new ones from memory, old ones from the database.

    However many streams are open, each movement of the checkpoint costs one query.
    """

    def __init__(self, read: Read, watch: CheckpointWatcher) -> None:
        self._read = read
        self._watch = watch
        self._kept: list[Change] = []
        self._begin: int | None = None
        """All changes after this position and up to `_end` are kept; None before the first read."""
        self._end = 0
        self._refreshing = asyncio.Lock()
        self._readers = asyncio.Semaphore(READERS)
        self._streams = 0

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams

    @property
    def is_full(self) -> bool:
        """Whether no further stream is served."""
        return self._streams >= MOST_STREAMS

    async def stream(self, after: int, labs: Labs, admitted: Admitted) -> AsyncIterator[bytes]:
        """Yield a server-sent event for each changed bill, until the server stops.

        A bill that changes twice in quick succession may come once. Ends at once if the feed is
        full, and when the caller's key is no longer valid.
        """
        if self.is_full:
            return
        self._streams += 1
        try:
            yield b": changes after %d\n\n" % after
            if after > self._watch.position:
                yield b": the projection is at %d\n\n" % self._watch.position
            async for part in self._parts(after, labs, admitted):
                yield part
        finally:
            self._streams -= 1

    async def _parts(self, after: int, labs: Labs, admitted: Admitted) -> AsyncIterator[bytes]:
        last = after
        clock = asyncio.get_running_loop().time
        sent = clock()
        while not self._watch.closed and (verdict := admitted()) is not False:
            seen = self._watch.position
            try:
                if verdict is None:
                    raise DatabaseUnavailableError("the API keys could not be read lately")
                reached, found = await self._after(last, labs)
            except _DATABASE_ERRORS as error:
                _log.warning("stream of changes interrupted", error=" ".join(str(error).split()))
                yield b": the database does not answer\n\n"
                await self._watch.moved(seen, RETRY_SECONDS)
                continue
            if found:
                sent = clock()
                yield b"".join(map(_event, found))
            last = max(last, reached)
            if len(found) < PART:
                await asyncio.sleep(PAUSE_SECONDS)
                await self._watch.moved(seen, CHECK_SECONDS)
                if clock() - sent >= KEEP_ALIVE_SECONDS:
                    sent = clock()
                    yield b": still here\n\n"

    async def _after(self, position: int, labs: Labs) -> tuple[int, list[Change]]:
        """Return changes after a position, and the position up to which these are all."""
        await self._refresh()
        if self._begin is not None and position >= self._begin:
            kept = self._kept[bisect_right(self._kept, position, key=_position_of) :]
            return self._end, [one for one in kept if concerns(labs, one.lab_id)]
        async with self._readers:
            reached, found = await self._read(position, labs, PART)
        return (reached if len(found) < PART else found[-1].position), found

    async def _refresh(self) -> None:
        """Read what changed since the last refresh, once for all streams that wait for it."""
        async with self._refreshing:
            if self._begin is None:
                self._end, _ = await self._read(self._watch.position, None, 1)
                self._begin = self._end
            while self._end < self._watch.position:
                reached, found = await self._read(self._end, None, PART)
                self._kept += found
                self._end = reached if len(found) < PART else found[-1].position
                if len(self._kept) > KEPT:
                    self._begin = self._kept[-KEPT - 1].position
                    del self._kept[:-KEPT]


def _event(change: Change) -> bytes:
    return b"id: %d\nevent: bill\ndata: %s\n\n" % (change.position, change.item)
