"""Limits on a worker's connections: deadlines, how many may be open, how much input they may hold.

Time limits are checked by one sweep a second over all connections, not by a timer for each request,
which would cost more than parsing the request.
"""

import asyncio
import math
from collections import Counter
from typing import Protocol

import structlog

from ledger.intake.throttled_log import ThrottledLog

SWEEP_SECONDS = 1.0
"""How often deadlines are checked."""

MAX_CONNECTIONS = 1024
"""Connections that a worker keeps open, if its descriptor limit allows that many."""

RESERVED_SHARE = 4
"""One descriptor in this many is kept for the database, uploads, and connections just accepted."""

SHED_SHARE = 16
"""At the ceiling, one connection in this many is closed, so that the search for them is rare."""

MAX_HELD_BYTES = 64 * 1024 * 1024
"""Input that all connections of a worker together may hold: unparsed, and in unfinished bodies."""

ADDRESS_SHARE = 2
"""One address, unless it is a trusted proxy's, may have one connection in this many of the ceiling;
of more, its own are closed. Far more than an honest sender has, but not enough to keep others out.
"""

NEVER = math.inf

ENDING, WITHOUT_REQUEST, IN_BODY = range(3)
"""What a connection is doing that is owed no answer, in the order in which they are closed.

A request without a valid token or key is refused before its body, so only callers with one are in a
body. To keep them from holding all connections, those beyond half of the ceiling are closed first.
"""

_log = structlog.get_logger(__name__)


class Connection(Protocol):
    """A connection, as far as its limits are concerned. Times are the event loop's, in seconds."""

    deadline: float
    """When `expire` is due."""

    neighbourhood: str | None
    """Whose connections are counted together; None for those that are not."""

    @property
    def held(self) -> int:
        """Bytes of unparsed input, and of the unfinished body."""

    def expire(self, now: float) -> None:
        """End the connection, or move its deadline."""

    def shed(self) -> None:
        """Close the connection at once."""

    def claim(self) -> tuple[int, float] | None:
        """Return what the connection is doing and since when, or None if it is owed an answer."""


class ConnectionLimits:
    """Enforces the limits for the connections of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, descriptors: int) -> None:
        self._loop = loop
        self._connections: dict[Connection, None] = {}
        self._ceiling = min(MAX_CONNECTIONS, descriptors - max(descriptors // RESERVED_SHARE, 1))
        self._address_ceiling = max(self._ceiling // ADDRESS_SHARE, 1)
        self._by_neighbourhood: Counter[str] = Counter()
        self._held = 0
        self._sweeping = False
        self._warn_of_ceiling = ThrottledLog(
            _log.warning, "too many connections: the ones that have been idle longest are closed"
        )
        self._warn_of_address = ThrottledLog(
            _log.warning,
            "too many connections of one address: the ones that have been idle longest are closed",
        )
        self._warn_of_input = ThrottledLog(
            _log.warning, "too much incomplete input: the oldest incomplete requests are closed"
        )

    @property
    def ceiling(self) -> int:
        """How many connections may be open."""
        return self._ceiling

    def add(self, connection: Connection) -> None:
        """Count a new connection; close others if there are too many, of its address or in all."""
        self._connections[connection] = None
        if (place := connection.neighbourhood) is not None:
            self._by_neighbourhood[place] += 1
            if (excess := self._by_neighbourhood[place] - self._address_ceiling) > 0:
                count = max(self._address_ceiling // SHED_SHARE, excess)
                closed = self._idlest(place)[:count]
                self._shed(closed)
                self._warn_of_address(address=place, open=self._address_ceiling, closed=len(closed))
        if len(self._connections) > self._ceiling:
            count = max(self._ceiling // SHED_SHARE, len(self._connections) - self._ceiling)
            closed = self._idlest()[:count]
            self._shed(closed)
            self._warn_of_ceiling(open=self._ceiling, closed=len(closed))
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        if (place := connection.neighbourhood) is not None:
            self._by_neighbourhood[place] -= 1
            if not self._by_neighbourhood[place]:
                del self._by_neighbourhood[place]

    def hold(self, change: int) -> None:
        """Count bytes of input that a connection now holds, or, negative, no longer holds."""
        self._held += change
        if self._held > MAX_HELD_BYTES:
            excess = self._held - MAX_HELD_BYTES * (SHED_SHARE - 1) // SHED_SHARE
            closed = []
            for connection in self._idlest():
                if excess <= 0:
                    break
                if connection.held:
                    excess -= connection.held
                    closed.append(connection)
            self._shed(closed)
            self._warn_of_input(bytes=MAX_HELD_BYTES, closed=len(closed))

    def _idlest(self, neighbourhood: str | None = None) -> list[Connection]:
        """Return the connections (of one address) that may be closed, in the order to do so."""
        claims = [
            (claim, connection)
            for connection in self._connections
            if neighbourhood in {None, connection.neighbourhood}
            and (claim := connection.claim()) is not None
        ]
        claims.sort(key=lambda pair: pair[0])
        idlest = [connection for (doing, _), connection in claims if doing != IN_BODY]
        in_body = [connection for (doing, _), connection in claims if doing == IN_BODY]
        ceiling = self._ceiling if neighbourhood is None else self._address_ceiling
        excess = max(0, len(in_body) - ceiling // 2)
        return [*in_body[:excess], *idlest, *in_body[excess:]]

    def _shed(self, connections: list[Connection]) -> None:
        for connection in connections:
            # Removed now: the event loop reports the end of the connection only later.
            self.remove(connection)
            connection.shed()

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._connections):
            if connection.deadline <= now:
                connection.expire(now)
        self._sweeping = bool(self._connections)
        if self._sweeping:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
