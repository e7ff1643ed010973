"""Bounds what is done for callers without a valid token: how many bodies are read, and how long.

A refusal needs no body. One is read all the same if that costs next to nothing, because a sender
whose token is wrong may be the real one. Beyond the bounds, callers are refused at once.
"""

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from ledger.intake.proxies import neighbourhood

if TYPE_CHECKING:
    from litestar.types import Receive

LONGEST = 64 * 1024
"""Bytes of a body that is read; Flabs' are a few thousand."""

MOST_AT_ONCE = 32
"""Bodies that a worker waits for. One more, and the one that it has waited for longest is given up:
a body that comes with its head or soon after it gets in whatever others hold open."""

MOST_BYTES = 1024 * 1024
"""Of bodies that a worker waits for, as announced."""

SECONDS = 2.0
"""How long a body may take."""

A_SECOND = 200
"""Bodies that a worker reads in a second; those of one client at most half of them
(an IPv4 address, or a /64 network of IPv6)."""

LOOK_SECONDS = 0.02
"""Seconds in each second that a worker spends on what those bodies say; for those of one client at
most half of them. Hostile ones take a hundred times as long as Flabs'."""


class Allowance:
    """Reads bodies of callers without a valid token, within the bounds of one worker."""

    def __init__(self) -> None:
        self._under_way: dict[asyncio.Timeout, int] = {}
        self._second = 0
        self._bodies: Counter[str] = Counter()
        self._spent: Counter[str] = Counter()  # microseconds

    async def read(self, receive: "Receive", length: int | None, client: str) -> bytes | None:
        """Return the complete body; None if it is not allowed, or does not come in time.

        `length` is the announced one, None if there is none.
        """
        size = LONGEST if length is None else length
        if not 0 < size <= LONGEST or not self._is_allowed(client):
            return None
        self._make_room(size)
        timeout = asyncio.timeout(SECONDS)
        try:
            async with timeout:
                self._under_way[timeout] = size
                return await _body(receive, size)
        except TimeoutError:
            return None
        finally:
            self._under_way.pop(timeout, None)

    def spend(self, client: str, seconds: float) -> None:
        """Count time that was spent on a body of a client."""
        self._spent[neighbourhood(client)] += round(seconds * 1e6)

    def _is_allowed(self, client: str) -> bool:
        client = neighbourhood(client)
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._bodies.clear()
            self._spent.clear()
        spent, most = self._spent, LOOK_SECONDS * 1e6
        if 2 * self._bodies[client] >= A_SECOND or 2 * spent[client] >= most:
            return False
        if self._bodies.total() >= A_SECOND or spent.total() >= most:
            return False
        self._bodies[client] += 1
        return True

    def _make_room(self, size: int) -> None:
        under_way = self._under_way
        while under_way and (
            len(under_way) >= MOST_AT_ONCE or sum(under_way.values()) + size > MOST_BYTES
        ):
            oldest = next(iter(under_way))
            del under_way[oldest]
            oldest.reschedule(asyncio.get_running_loop().time())


async def _body(receive: "Receive", longest: int) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message["body"]
        if len(body) > longest:
            return None
        if not message.get("more_body"):
            return bytes(body)
