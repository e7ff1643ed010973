"""Limits on a worker's connections: deadlines, how many may be open, how much input they may hold.

Time limits are checked by one sweep a second over all connections, not by a timer for each request,
which would cost more than parsing the request.
"""

import asyncio
import math
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
"""Input that all connections of a worker together may hold unparsed."""

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

    @property
    def held(self) -> int:
        """Bytes of unparsed input."""

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
        self._held = 0
        self._sweeping = False
        self._warn_of_ceiling = ThrottledLog(
            _log.warning, "too many connections: the ones that have been idle longest are closed"
        )
        self._warn_of_input = ThrottledLog(
            _log.warning, "too much unparsed input: the oldest incomplete requests are closed"
        )

    @property
    def ceiling(self) -> int:
        """How many connections may be open."""
        return self._ceiling

    def add(self, connection: Connection) -> None:
        """Count a new connection; close others if there are too many."""
        self._connections[connection] = None
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
        self._connections.pop(connection, None)

    def hold(self, change: int) -> None:
        """Count bytes that a connection now holds unparsed, or, negative, no longer holds."""
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

    def _idlest(self) -> list[Connection]:
        """Return the connections that may be closed, in the order in which to do so."""
        claims = [(claim, c) for c in self._connections if (claim := c.claim()) is not None]
        claims.sort(key=lambda pair: pair[0])
        idlest = [connection for (doing, _), connection in claims if doing != IN_BODY]
        in_body = [connection for (doing, _), connection in claims if doing == IN_BODY]
        excess = max(0, len(in_body) - self._ceiling // 2)
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
